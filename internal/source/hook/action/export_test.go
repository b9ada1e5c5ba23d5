package action

import "runtime"

// Value is what an argument means in a request, for tests that ask for nothing else.
func Value(source, name string, r *Request) (string, error) {
	return (&argument{source: source, name: name}).value(r)
}

// Unfold replaces an argument's text by the object in it.
func Unfold(source, name string, r *Request) error {
	return (&argument{source: source, name: name}).unfold(r)
}

// IsMissing says whether an error is that the request does not have something.
func IsMissing(err error) bool {
	_, ok := err.(*missingError)
	return ok
}

// Bounds, for tests that meet them.
const (
	MaxString = maxString
	MaxFile   = maxFile
	MaxNodes  = maxNodes
	MaxDepth  = maxDepth
)

// AwaitWaiting returns when that many wait for a place.
func AwaitWaiting(r *Runner, n int) { r.await(func(p *places) bool { return len(p.waiting) == n }) }

// AwaitShut returns when the runner takes nothing more.
func AwaitShut(r *Runner) { r.await(func(p *places) bool { return p.shut }) }

func (r *Runner) await(is func(*places) bool) {
	for {
		r.places.mu.Lock()
		done := is(r.places)
		r.places.mu.Unlock()
		if done {
			return
		}
		runtime.Gosched()
	}
}
