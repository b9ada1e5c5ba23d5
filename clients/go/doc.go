// Package carillon is the Go client of the Carillon event gateway: it publishes
// events, reads history, and receives events as they happen without losing any
// across a reconnect.
//
// # A client
//
// [New] makes a [Client] from an address and a credential. It makes no
// connection, holds no resource of its own and is safe for concurrent use.
//
//	client, err := carillon.New(carillon.Options{
//		URL:    "https://events.example.com",
//		APIKey: os.Getenv("CARILLON_API_KEY"),
//	})
//
// A server program uses an API key, which stands for its organization and has
// no user: no inbox, no rooms, no From. A program that acts for a user sets
// Token, or TokenFunc when tokens expire while it runs.
//
// # Publishing
//
// [Client.Publish] returns when the events are in the durable log, and tries
// again when the server is away or asks to wait. Every draft without an ID gets
// a random one first, so that trying again never stores an event twice. Give
// your own ID when your program itself may send the same event again. Up to
// [MaxDrafts] drafts are taken whole or refused whole.
//
// # Subscribing
//
// [Client.Subscribe] opens a WebSocket of its own and keeps it: it reconnects,
// resumes where it was, refreshes the token when the server says it is about to
// expire, and notices a connection that has gone silent.
//
//	sub, err := client.Subscribe(ctx, []string{"workflow.>"}, carillon.SubscribeOptions{})
//	if err != nil {
//		return err
//	}
//	defer sub.Close()
//	for event, err := range sub.Events() {
//		if err != nil {
//			return err
//		}
//		handle(event)
//	}
//
// A pattern is an event type in which '*' stands for one segment and a last
// '>' for one or more. Events come in the order of the log, each once however
// many patterns match. Events for rooms the user is in and events directed at
// the user come on every subscription, whatever its patterns; with no pattern
// at all, only those come.
//
// Several reasons end a subscription: the context given to Subscribe,
// [Subscription.Close], and a refusal that trying again would not change, such
// as a bad token. Anything that may pass is retried for as long as it takes.
// How long it waits between two tries is random between half a second and a
// growing limit of at most 30 seconds; a server that asks for another wait is
// obeyed.
//
// # Where a subscription starts, and starts again
//
// SubscribeOptions.After says after which place in the log to start: "now" (the
// default), "earliest", a time back such as "-10m", or a cursor.
// [Subscription.Cursor] is the place up to which this program has been given
// everything. Keep it after handling an event, hand it to After in the next
// run, and no event is missed. Event ids are opaque: compare them for equality
// only. An event's id is usually the cursor after it, but not while older
// events are being caught up with; Cursor knows the difference.
//
// Delivery is at least once. The client drops the repeats that a reconnect can
// bring by id, in a window of [DedupeWindow] events; a program that resumes
// from a kept cursor may see the events it handled after keeping it again.
//
// # Gaps
//
// When events between the cursor and what comes next no longer exist, the
// server says so, and so does the client: as a [*Gap] error from
// [Subscription.Next] and Events, after which the subscription goes on, or by
// calling SubscribeOptions.OnGap in its place. After [GapExpired] some events
// were missed; after [GapReset] the log is another one, and state built from
// events should be loaded anew.
//
// # History and polling
//
// [Client.History] reads what was published before, page by page.
// [Client.Poll] is the way to receive where no connection can be held: every
// answer carries the cursor for the next call.
//
// # Errors
//
// Every method returns a [*Error], which says by Code what went wrong, by
// Retryable whether the same call may succeed later, and by RetryAfter when.
// Two more errors can come from a subscription: [*Gap], and [ErrClosed] after
// Close.
//
// # Slow readers
//
// A subscription holds a bounded number of received events. A program that
// falls behind is not given a growing queue: the client stops reading, and the
// server keeps the events until it reads on. Nothing is lost by this.
package carillon
