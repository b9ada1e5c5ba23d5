// Package action does something when a webhook comes: it runs a command, or hands
// the request on to an HTTP address, if rules say so.
//
// A [Rule] is judged over a [Request]. An [Action] is a rule with what to do, for
// configured sources; a [Set] is what hooks files say, in the form of
// adnanh/webhook, and a [Handler] answers requests with it. Both run what they run
// by a [Runner].
//
// # What a command may take
//
// A command is started as it is written, never by a shell. It gets an environment
// of its own making, not the server's, and a process group. It ends when its
// process ends: what it leaves running in its group is killed, and so is
// everything when its time is over or the runner closes. A program that is to stay
// must leave the group, as a daemon does.
//
// How many run and wait at the same time has limits, for all together and for each
// hook. Whoever comes when all is full is told when to come back.
//
// # Hooks files
//
// A file that adnanh/webhook takes gives the same results here, but for what
// [Check] tells about it. Who may write one may run any command: hooks files are
// the operator's, never a tenant's.
package action
