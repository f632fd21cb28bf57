// Package reconcile is the leader's judgement. Plan and its parts are pure functions: committed state and what the
// leader has observed go in, commands come out, sorted, the same for the same input. They do no I/O, read no clock and
// compare no two machines' clocks: all time in an Observation is how long this leader itself has seen something be so.
//
// Loop is the thin part around them: it observes, plans and proposes while its context lives, which is as long as this
// node leads. It has no side effects but proposals, so a deposed leader can do no harm.
package reconcile
