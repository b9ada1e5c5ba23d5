package api

import "net/http"

// route is one method of one path.
type route struct {
	method, path string
	handle       func(*api, http.ResponseWriter, *http.Request) error
}

// routes is the whole surface. A GET route answers HEAD as well.
func routes() []route {
	return []route{
		{http.MethodPost, "/v1/events", (*api).publish},
		{http.MethodGet, "/v1/events", (*api).history},
		{http.MethodPost, "/v1/tickets", (*api).ticket},
		{http.MethodGet, "/v1/openapi.json", (*api).openAPI},
	}
}

// Routes are the method and the path of each, such as "GET /v1/events".
func Routes() []string {
	var list []string
	for _, r := range routes() {
		list = append(list, r.method+" "+r.path)
	}
	return list
}
