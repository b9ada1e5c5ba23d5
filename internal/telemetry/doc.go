// Package telemetry is how a node tells its operator what it does: a logger and
// a metrics page.
//
// The stages of a node keep plain counters and know nothing of metrics. At each
// scrape a function that the caller hands in reads all of them into one
// [Sample], and this package gives them the names that dashboards know. There is
// no global registry: every node has its own.
package telemetry
