package traffic

import (
	"context"
	"fmt"
	"math/rand/v2"
)

// journeyEvery is the mean number of visits per journey.
const journeyEvery = 60

// driveChunk makes visits one after another, and the journeys that follow from them. It
// draws everything in advance, so that the servers' answers do not influence it.
func (r *generator) driveChunk(ctx context.Context, n, visits int) error {
	rng := rand.New(rand.NewPCG(r.cfg.Seed, uint64(n)+1))
	batches := make(map[string][]*message)
	for i := range visits {
		v := r.drawVisit(rng)
		converts := rng.IntN(journeyEvery) == 0
		atOnce := rng.IntN(3) == 0 // else with others, in a batch
		template := r.drawTemplate(rng)
		seed := rng.Uint64()
		tok, err := r.client.followLink(ctx, &v)
		if err != nil {
			return err
		}
		r.countVisit()
		if _, merchant := r.client.secrets[v.workspace.ID]; !converts || !merchant || tok == "" {
			continue
		}
		t := r.newPlayer(fmt.Sprintf("%s-%d-%d", r.eventIDPrefix, n, i), v.workspace.ID, tok,
			rand.New(rand.NewPCG(seed, 0)))
		for k, s := range template.steps {
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
		if !atOnce && seed%8 == 0 { // add an event with a forged token
			m, err := t.nextEvent(step{
				id:      "F",
				typ:     "sale",
				amount:  "any",
				token:   "forged",
				refused: &tokenInvalid,
			})
			if err != nil {
				return err
			}
			batches[t.workspace] = append(batches[t.workspace], m)
		}
	}
	for i := range r.targets { // in a fixed order
		w := r.targets[i].workspace.ID
		if len(batches[w]) == 0 {
			continue
		}
		id := fmt.Sprintf("msg-%s-%d-%s", r.eventIDPrefix, n, w)
		if err := r.client.sendBatch(ctx, w, id, batches[w]); err != nil {
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
