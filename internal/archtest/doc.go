// Package archtest holds the code to its architecture: which room may import
// which, and which libraries come in at all.
//
// [Check] parses the imports of every Go file, whatever its build tags, and
// compares them with [Table] and with docs/dependencies.md. What is not allowed
// there is refused. The package's own test runs it over the repository.
package archtest
