package traffic

import (
	"context"
	"fmt"
	"math/rand/v2"
)

// journeyEvery is how many visits bring one journey.
const journeyEvery = 60

// chunk makes visits one after the other, with the journeys that follow from them. All
// that it does is drawn before it is done, so it does not depend on what the servers
// answer.
func (r *run) chunk(ctx context.Context, n, visits int) error {
	rng := rand.New(rand.NewPCG(r.cfg.Seed, uint64(n)+1))
	batches := make(map[string][]*message)
	for i := range visits {
		v := r.drawVisit(rng)
		converts, atOnce, with, own := rng.IntN(journeyEvery) == 0, rng.IntN(3) == 0, r.drawShape(rng), rng.Uint64()
		tok, err := r.client.follow(ctx, &v)
		if err != nil {
			return err
		}
		r.visited()
		if _, merchant := r.client.secrets[v.workspace.ID]; !converts || !merchant || tok == "" {
			continue
		}
		t := r.teller(fmt.Sprintf("%s-%d-%d", r.prefix, n, i), v.workspace.ID, tok, rand.New(rand.NewPCG(own, 0)))
		for k, s := range with.steps {
			m, err := t.message(s)
			if err != nil {
				return err
			}
			if !atOnce {
				batches[t.workspace] = append(batches[t.workspace], m)
			} else if err := r.client.send(ctx, m, fmt.Sprintf("msg-%s-%d", t.prefix, k)); err != nil {
				return err
			}
		}
		if !atOnce && own%8 == 0 { // somebody tries
			m, err := t.message(step{
				id:      "F",
				typ:     "sale",
				amount:  "any",
				token:   "forged",
				refused: &refusal{422, "token_invalid"},
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
		if err := r.client.sendBatch(ctx, w, fmt.Sprintf("msg-%s-%d-%s", r.prefix, n, w), batches[w]); err != nil {
			return err
		}
		delete(batches, w)
	}
	return nil
}

func (r *run) drawShape(rng *rand.Rand) *shape {
	total := 0
	for i := range r.shapes {
		total += r.shapes[i].weight
	}
	at, i := rng.IntN(total), 0
	for at -= r.shapes[0].weight; at >= 0; at -= r.shapes[i].weight {
		i++
	}
	return &r.shapes[i]
}
