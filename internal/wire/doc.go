// Package wire is what clients see: frames, their JSON, the framing bytes of
// WebSocket and SSE, event ids, close codes, and the reading of what clients
// send. It knows no stage of the pipeline: it turns values into bytes and back.
//
// Everything in it is safe for concurrent use unless a comment says otherwise.
package wire
