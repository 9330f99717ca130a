// Package traffic generates seeded traffic for a redirector and a gateway over HTTP,
// and records what they answered.
//
//	Run ──▶ visits   GET go.acme.com/nomura?sub1=…   302, token read from Location
//	    ├─▶ events   signed here, one by one or in batches
//	    └─▶ Ledger   every redirected visit, every accepted or refused event
//
// The package knows the pipeline only from outside: its HTTP interfaces, the records
// (schemas/*) and the format of a token (pipeline/token). It shares no code with the
// redirector or the gateway. It signs and encodes JSON itself, so that it does not
// repeat their mistakes. A test checks that it imports nothing else of the project.
//
// Traffic has two parts. Scenarios (scenarios.txt) are written by hand, each with the
// verdicts that a person expects; refusals.go adds the requests that must be refused.
// Volume is drawn from the seed: human visitors with browsers and referrers, crawlers,
// HEAD requests, QR scans, sub-ids. About one visit in sixty starts a journey of leads,
// sales, refunds, cancellations and reversals (journeys.txt). Some journeys are posted
// right after the redirect, so that they can overtake their click.
//
// Every response is checked on arrival: an unexpected status, or a Location with one
// byte changed, stops the run with an error that shows the request. The Ledger checks
// the records in Kafka afterwards: CheckClicks, CheckConversions and CheckRejections
// compare the records with the answers, and CheckScenarios checks the verdicts of the
// scenarios.
//
// The same seed, catalog and clock give the same requests with any number of workers.
// Only the tokens differ, since the redirector mints them.
package traffic
