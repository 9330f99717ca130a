// Package traffic drives a redirector and a gateway over HTTP with seeded traffic, and
// remembers what it did.
//
//	Run ──▶ visits   GET go.acme.com/nomura?sub1=…   302, token read from Location
//	    ├─▶ events   signed by hand, one by one or in batches
//	    └─▶ Ledger   every visit that was redirected, every event that was accepted or refused
//
// It knows only the outside of the pipeline: its HTTP interfaces, the records
// (schemas/*) and the form of a token (pipeline/token). It shares no code with the
// redirector or the gateway; it signs and writes JSON by itself, so that a mistake in
// one of them is not made here too. Of the project it imports nothing else; a test
// holds it to that.
//
// Traffic has two parts. Stories (stories.txt) are written by hand, each with the
// verdicts that a person expects; refusals.go adds the requests that must be refused.
// Volume is drawn from the seed: human visitors with browsers and referrers, crawlers,
// HEAD requests, QR scans, sub-ids; about one visit in fifty brings a journey of leads,
// sales, refunds, cancellations and reversals (shapes.txt). Some journeys are posted
// right after the redirect, so that they can overtake their click.
//
// Every response is checked when it comes: an unexpected status or a Location with one
// byte changed stops the run with an error that shows the request. The Ledger checks
// the capture side afterwards, from the records in Kafka: CheckClicks, CheckConversions
// and CheckRejections compare what was recorded with what was answered, and
// CheckStories the verdicts of the stories.
//
// The same seed, catalog and clock give the same requests, whatever the number of
// workers; tokens are made by the redirector, so they differ.
package traffic
