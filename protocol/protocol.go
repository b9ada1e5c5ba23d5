// Package protocol is the client protocol in the forms that programs read. What
// people read is spec.md beside it, which is the contract.
package protocol

import _ "embed"

// OpenAPI is the HTTP side as an OpenAPI 3.1 document, JSON. It is shared: do not
// change it.
//
//go:embed openapi.json
var OpenAPI []byte
