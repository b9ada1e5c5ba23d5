// Package carillon is the vocabulary of the Carillon event gateway: the words
// that every other package speaks, and nothing that acts.
//
// An [Event] is something that happened: a type, a time, data and an audience.
// An [Entry] is an event at a place in its organization's log, and that place
// is a [Position]. A [Pattern] says which types somebody wants, a [Principal]
// says who somebody is and what they may do, an [Error] says what went wrong
// and what would be right.
//
// Strings from outside become these types once, at the edge, through a Parse
// function; inside they are not checked again. The package imports the
// standard library only.
package carillon
