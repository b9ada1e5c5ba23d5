// Package ledger says what became of each webhook delivery: a projection, in
// SQLite, of the entries of the intake log (package intake).
//
// It holds nothing of its own. [Ledger.Apply] folds entries in the order of the
// log and moves a cursor in the same transaction, so that a ledger which is
// deleted and folded again from the log has the same rows. It waits for no disk:
// a file that may have lost something is made anew.
//
// # Duplicates
//
// A delivery is a duplicate where one with the same organization, source, id and
// digest was received less than [Config.Known] before it, by the times of the
// entries. If that one was a duplicate itself, what counts is the delivery it
// repeats. Where that is dead or discarded the new one is processed: a provider's
// redelivery runs a dead letter again. Requests that were refused count for
// nothing: whoever cannot sign cannot make a delivery a duplicate.
//
// # Notes
//
// A note that does not fit the state of its delivery is ignored and counted, as
// is one about a delivery that is not known:
//
//	                  done     failed   dead    retry    discarded
//	pending           outcome  pending  dead    pending  discarded
//	dead              outcome  -        -       pending  discarded
//	discarded         outcome  -        -       pending  -
//	published, …      outcome  -        -       pending  -
//	duplicate         -        -        -       pending  -
//	refused           -        -        -       -        -
//
// # Concurrency
//
// All methods may be called from any goroutine. Changes take turns; readers see
// what the last transaction left, and wait for nobody, except in memory.
package ledger
