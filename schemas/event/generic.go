package event

import (
	"fmt"
	"time"

	"github.com/linkedin/goavro/v2"
)

// Progress and Rejection are rare, so they go through goavro's maps. A field that the
// writer's schema does not have is left zero.

func (k genericRecord) appendEncoded(dst []byte, native map[string]any) ([]byte, error) {
	b, err := k.codec.BinaryFromNative(appendFraming(dst, k.id), native)
	if err != nil {
		return dst, fmt.Errorf("encoding: %w", err)
	}
	return b, nil
}

func (c *Codec) decodeGeneric(b []byte, record string) (genericFields, error) {
	r, body, err := c.parseFraming(b, record)
	if err != nil {
		return nil, err
	}
	native, err := r.decodeNative(body)
	if err != nil {
		return nil, err
	}
	m, ok := native.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%w: %s is not a record", ErrMalformed, record)
	}
	return m, nil
}

// genericFields is a record in goavro's native form.
type genericFields map[string]any

func (f genericFields) textOf(name string) string { s, _ := f[name].(string); return s }
func (f genericFields) longOf(name string) int64  { v, _ := f[name].(int64); return v }
func (f genericFields) intOf(name string) int32   { v, _ := f[name].(int32); return v }
func (f genericFields) flagOf(name string) bool   { v, _ := f[name].(bool); return v }

// bytesOf returns nil for an empty field.
func (f genericFields) bytesOf(name string) []byte {
	if b, _ := f[name].([]byte); len(b) > 0 {
		return b
	}
	return nil
}

func (f genericFields) timeOf(name string) Millis {
	t, ok := f[name].(time.Time)
	if !ok {
		return 0
	}
	return MillisOf(t)
}

// AppendProgress appends p in wire form.
func (c *Codec) AppendProgress(dst []byte, p *Progress) ([]byte, error) {
	var oldest any
	if p.OldestWaitingReceivedAt != nil {
		oldest = goavro.Union("long.timestamp-millis", p.OldestWaitingReceivedAt.Time())
	}
	return c.progress.appendEncoded(dst, map[string]any{
		"partition":                  p.Partition,
		"at":                         p.At.Time(),
		"clicks_position":            p.ClicksPosition,
		"conversions_position":       p.ConversionsPosition,
		"clicks_max_at":              p.ClicksMaxAt.Time(),
		"conversions_max_at":         p.ConversionsMaxAt.Time(),
		"outcomes_end":               p.OutcomesEnd,
		"read":                       p.Read,
		"attributed":                 p.Attributed,
		"reversed":                   p.Reversed,
		"duplicate":                  p.Duplicate,
		"conflict":                   p.Conflict,
		"unattributed":               p.Unattributed,
		"unreadable":                 p.Unreadable,
		"waiting":                    p.Waiting,
		"oldest_waiting_received_at": oldest,
		"caught_up":                  p.CaughtUp,
		"grace_ms":                   p.GraceMs,
		"watermark":                  p.Watermark.Time(),
		"click_life_ms":              p.ClickLifeMs,
		"journey_life_ms":            p.JourneyLifeMs,
	})
}

// DecodeProgress reads a progress record from wire form.
func (c *Codec) DecodeProgress(b []byte, p *Progress) error {
	f, err := c.decodeGeneric(b, "Progress")
	if err != nil {
		return err
	}
	*p = Progress{
		Partition:           f.intOf("partition"),
		At:                  f.timeOf("at"),
		ClicksPosition:      f.longOf("clicks_position"),
		ConversionsPosition: f.longOf("conversions_position"),
		ClicksMaxAt:         f.timeOf("clicks_max_at"),
		ConversionsMaxAt:    f.timeOf("conversions_max_at"),
		OutcomesEnd:         f.longOf("outcomes_end"),
		Read:                f.longOf("read"),
		Attributed:          f.longOf("attributed"),
		Reversed:            f.longOf("reversed"),
		Duplicate:           f.longOf("duplicate"),
		Conflict:            f.longOf("conflict"),
		Unattributed:        f.longOf("unattributed"),
		Unreadable:          f.longOf("unreadable"),
		Waiting:             f.longOf("waiting"),
		CaughtUp:            f.flagOf("caught_up"),
		GraceMs:             f.longOf("grace_ms"),
		Watermark:           f.timeOf("watermark"),
		ClickLifeMs:         f.longOf("click_life_ms"),
		JourneyLifeMs:       f.longOf("journey_life_ms"),
	}
	if u, ok := f["oldest_waiting_received_at"].(map[string]any); ok {
		at := genericFields(u).timeOf("long.timestamp-millis")
		p.OldestWaitingReceivedAt = &at
	}
	return nil
}

// AppendRejection appends r in wire form.
func (c *Codec) AppendRejection(dst []byte, r *Rejection) ([]byte, error) {
	return c.rejection.appendEncoded(dst, map[string]any{
		"workspace_id": r.WorkspaceID,
		"webhook_id":   r.WebhookID,
		"event_id":     r.EventID,
		"click_token":  r.ClickToken,
		"received_at":  r.ReceivedAt.Time(),
		"status":       r.Status,
		"code":         r.Code,
		"field":        r.Field,
		"detail":       r.Detail,
		"body_sha256":  r.BodySHA256[:],
		"key_id":       r.KeyID,

		"type":            r.Type,
		"order_id":        r.OrderID,
		"parent_event_id": r.ParentEventID,
		"customer_hash":   r.CustomerHash,
	})
}

// DecodeRejection reads a rejection from wire form.
func (c *Codec) DecodeRejection(b []byte, r *Rejection) error {
	f, err := c.decodeGeneric(b, "Rejection")
	if err != nil {
		return err
	}
	*r = Rejection{
		WorkspaceID: f.textOf("workspace_id"),
		WebhookID:   f.textOf("webhook_id"),
		EventID:     f.textOf("event_id"),
		ClickToken:  f.textOf("click_token"),
		ReceivedAt:  f.timeOf("received_at"),
		Status:      f.intOf("status"),
		Code:        f.textOf("code"),
		Field:       f.textOf("field"),
		Detail:      f.textOf("detail"),
		KeyID:       f.textOf("key_id"),

		Type:          f.textOf("type"),
		OrderID:       f.textOf("order_id"),
		ParentEventID: f.textOf("parent_event_id"),
		CustomerHash:  f.bytesOf("customer_hash"),
	}
	sum, _ := f["body_sha256"].([]byte)
	copy(r.BodySHA256[:], sum)
	return nil
}
