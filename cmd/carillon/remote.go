package main

import (
	"errors"
	"fmt"

	client "github.com/carillon-rt/carillon/clients/go"
)

// Remote says which server a command talks to, and as whom.
type Remote struct {
	URL   string `help:"The server's address (default: http://127.0.0.1:8080)." env:"CARILLON_URL" default:"http://127.0.0.1:8080" placeholder:"URL"`
	Key   string `help:"Act as one of the organization's servers, with this API key; all but tail prefer it to a token." env:"CARILLON_API_KEY" placeholder:"KEY"`
	Token string `help:"Act as a user, with this token; tail prefers it to an API key." env:"CARILLON_TOKEN" placeholder:"TOKEN"`
}

// client makes a client; retries is Options.Retries. With both credentials at
// hand, preferToken decides.
func (r *Remote) client(preferToken bool, retries int) (*client.Client, error) {
	o := client.Options{URL: r.URL, Retries: retries}
	switch {
	case r.Token != "" && (preferToken || r.Key == ""):
		o.Token = r.Token
	case r.Key != "":
		o.APIKey = r.Key
	default:
		return nil, hint(errors.New("no credential"),
			"set CARILLON_API_KEY or CARILLON_TOKEN, or give --key or --token; `carillon dev` prints both")
	}
	return client.New(o)
}

// explain adds what would help to an error of the client.
func (r *Remote) explain(err error) error {
	var e *client.Error
	if !errors.As(err, &e) {
		return err
	}
	if e.Code == client.CodeNetwork {
		return hint(err, "is a server running at %s? `carillon dev` starts one; --url or CARILLON_URL names another", r.URL)
	}
	if e.Code == client.CodeUnauthenticated {
		return hint(err, "is the credential this server's, and still good? `carillon dev` prints new ones when it starts")
	}
	return err
}

// several prints how many there are of something.
func several(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return count(n) + " " + what
}

// count prints a number with commas.
func count(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
