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
	}
}
