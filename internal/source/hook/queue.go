package hook

import "github.com/carillon-rt/carillon"

// queue gives the jobs of all organizations in turn, those of one in order.
type queue struct {
	of   map[carillon.OrgID][]*job
	turn []carillon.OrgID // those that have any, whose turn it is first
}

func (q *queue) init() { q.of = map[carillon.OrgID][]*job{} }

func (q *queue) empty() bool { return len(q.turn) == 0 }

func (q *queue) push(j *job) {
	jobs := q.of[j.Org]
	if len(jobs) == 0 {
		q.turn = append(q.turn, j.Org)
	}
	q.of[j.Org] = append(jobs, j)
}

// pop takes one; the queue is not empty.
func (q *queue) pop() *job {
	org := q.turn[0]
	q.turn = q.turn[1:]
	jobs := q.of[org]
	j := jobs[0]
	jobs[0] = nil
	if jobs = jobs[1:]; len(jobs) == 0 {
		delete(q.of, org)
	} else {
		q.of[org] = jobs
		q.turn = append(q.turn, org)
	}
	return j
}

// clear forgets all.
func (q *queue) clear() { q.init(); q.turn = nil }
