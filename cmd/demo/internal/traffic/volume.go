package traffic

import (
	"context"
	"fmt"
	"math/rand/v2"
)

// journeyEvery is how many visits bring one journey.
const journeyEvery = 60

// driveChunk makes visits one after the other, with the journeys that follow from them. All
// that it does is drawn before it is done, so it does not depend on what the servers
// answer.
func (r *generator) driveChunk(ctx context.Context, n, visits int) error {
	rng := rand.New(rand.NewPCG(r.cfg.Seed, uint64(n)+1))
	batches := make(map[string][]*message)
	for i := range visits {
		v := r.drawVisit(rng)
		converts, atOnce, with, own := rng.IntN(journeyEvery) == 0, rng.IntN(3) == 0, r.drawTemplate(rng), rng.Uint64()
		tok, err := r.client.followLink(ctx, &v)
		if err != nil {
			return err
		}
		r.countVisit()
		if _, merchant := r.client.secrets[v.workspace.ID]; !converts || !merchant || tok == "" {
			continue
		}
		t := r.newPlayer(fmt.Sprintf("%s-%d-%d", r.eventIDPrefix, n, i), v.workspace.ID, tok, rand.New(rand.NewPCG(own, 0)))
		for k, s := range with.steps {
			m, err := t.nextEvent(s)
			if err != nil {
				return err
			}
			if !atOnce {
				batches[t.workspace] = append(batches[t.workspace], m)
			} else if err := r.client.sendEvent(ctx, m, fmt.Sprintf("msg-%s-%d", t.prefix, k)); err != nil {
				return err
			}
		}
		if !atOnce && own%8 == 0 { // somebody tries
			m, err := t.nextEvent(step{
				id:      "F",
				typ:     "sale",
				amount:  "any",
				token:   "forged",
				refused: &expectedRefusal{422, "token_invalid"},
			})
			if err != nil {
				return err
			}
			batches[t.workspace] = append(batches[t.workspace], m)
		}
	}
	for i := range r.targets { // in an order that does not change
		w := r.targets[i].workspace.ID
		if len(batches[w]) == 0 {
			continue
		}
		if err := r.client.sendBatch(ctx, w, fmt.Sprintf("msg-%s-%d-%s", r.eventIDPrefix, n, w), batches[w]); err != nil {
			return err
		}
		delete(batches, w)
	}
	return nil
}

func (r *generator) drawTemplate(rng *rand.Rand) *journeyTemplate {
	total := 0
	for i := range r.templates {
		total += r.templates[i].weight
	}
	at, i := rng.IntN(total), 0
	for at -= r.templates[0].weight; at >= 0; at -= r.templates[i].weight {
		i++
	}
	return &r.templates[i]
}
