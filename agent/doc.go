// Package agent is one node's hands. It watches this node's replica of the committed state and does what that names
// this node for: the steps of running deployments, the switch to what became active, and repairs. It decides nothing.
//
// Every effect is an idempotent Ensure: look at what is there, act on the difference, verify. So resuming is running: an
// agent that starts finds the steps that are ordered and not reported, and does them, whatever a killed predecessor
// had done of them. A report is bound to deployment, phase, attempt and node; one that comes too late is refused by the
// state machine and dropped here.
//
// Concurrency: one goroutine watches the state and starts a goroutine per job; a job's context ends when the state no
// longer asks for it. Run returns when all of them have.
package agent
