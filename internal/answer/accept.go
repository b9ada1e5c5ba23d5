package answer

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/carillon-rt/carillon"
)

// The media types of events.
const (
	JSON        = "application/json"
	CloudEvents = "application/cloudevents+json"
)

// TakesCloudEvents reports in which form a client wants events: as CloudEvents,
// or as everywhere else. It is the one its Accept headers value most (RFC 9110,
// section 12.5.1), of two that are valued alike the one that is named more
// exactly, and otherwise the usual one. It refuses a client that takes neither.
func TakesCloudEvents(request http.Header) (bool, error) {
	ranges := elements(request["Accept"])
	if len(ranges) == 0 {
		return false, nil
	}
	plain, plainness := media(ranges, JSON)
	cloud, cloudiness := media(ranges, CloudEvents)
	if plain == 0 && cloud == 0 {
		return false, carillon.Errorf(carillon.CodeUnsupportedMedia, "Accept leaves out what this server has; it has events as %s and as %s", JSON, CloudEvents)
	}
	return cloud > plain || cloud == plain && cloudiness > plainness, nil
}

// media is what the most exact range that matches a type values it with, in
// thousandths, and how exact that is: 3 for the type itself, 0 for none.
func media(ranges []element, t string) (value, exactness int) {
	major, _, _ := strings.Cut(t, "/")
	for _, r := range ranges {
		exact := 0
		switch r.name {
		case t:
			exact = 3
		case major + "/*":
			exact = 2
		case "*/*":
			exact = 1
		}
		if exact > exactness {
			value, exactness = r.value, exact
		}
	}
	return value, exactness
}

// element is one of a list of names with their values.
type element struct {
	name  string // in small letters
	value int    // in thousandths
}

// elements reads Accept and Accept-Encoding. What makes no sense in them is
// passed over.
func elements(headers []string) (list []element) {
	for _, h := range headers {
		for part := range strings.SplitSeq(h, ",") {
			name, params, _ := strings.Cut(part, ";")
			e := element{strings.ToLower(strings.Trim(name, " \t")), 1000}
			if e.name == "" {
				continue
			}
			for p := range strings.SplitSeq(params, ";") {
				if q, ok := strings.CutPrefix(strings.ToLower(strings.Trim(p, " \t")), "q="); ok {
					f, err := strconv.ParseFloat(q, 64)
					if err != nil || !(f >= 0 && f <= 1) {
						f = 0
					}
					e.value = int(f*1000 + 0.5)
				}
			}
			list = append(list, e)
		}
	}
	return list
}
