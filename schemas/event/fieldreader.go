package event

import (
	"encoding/binary"
	"math"
	"unsafe"
)

// Clicks, conversions and outcomes of today's schemas are read by hand: a reflecting
// decoder takes several times as long, and sink and processor read little else. These
// readers give up on whatever is unusual; twmb/avro then decides what the bytes are, and
// says what is wrong with them. FuzzRead compares both on arbitrary bytes.

// fieldReader reads one field after another from Avro binary. Texts are parts of rest.
// After a field that it cannot read, failed is set and values are meaningless.
type fieldReader struct {
	rest   string
	failed bool
}

// newFieldReader returns a reader of body, or of a copy if the record may outlive it.
func newFieldReader(body []byte, aliasing bool) fieldReader {
	if aliasing {
		return fieldReader{rest: unsafeText(body)}
	}
	return fieldReader{rest: string(body)}
}

// unsafeText returns b as a text that shares its memory.
func unsafeText(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// done reports whether everything was read, and nothing is left.
func (r *fieldReader) done() bool { return !r.failed && r.rest == "" }

func (r *fieldReader) readByte() byte {
	if r.rest == "" {
		r.failed = true
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *fieldReader) readLong() int64 {
	if r.rest != "" && r.rest[0] < 0x80 {
		u := uint64(r.rest[0])
		r.rest = r.rest[1:]
		return int64(u>>1) ^ -int64(u&1)
	}
	v, n := binary.Varint(unsafe.Slice(unsafe.StringData(r.rest), min(len(r.rest), binary.MaxVarintLen64)))
	if n <= 0 {
		r.failed = true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *fieldReader) readInt() int32 {
	before := len(r.rest)
	v := r.readLong()
	if v < math.MinInt32 || v > math.MaxInt32 || before-len(r.rest) > binary.MaxVarintLen32 {
		r.failed = true
	}
	return int32(v)
}

func (r *fieldReader) readText() string {
	n := r.readLong()
	if n < 0 || n > int64(len(r.rest)) {
		r.failed = true
		return ""
	}
	s := r.rest[:n]
	r.rest = r.rest[n:]
	return s
}

func (r *fieldReader) readFlag() bool {
	b := r.readByte()
	r.failed = r.failed || b > 1
	return b == 1
}

// readSymbol reads an enum with these symbols.
func readSymbol[T ~string](r *fieldReader, symbols []T) T {
	b := r.readByte()
	if b&1 != 0 || int(b>>1) >= len(symbols) {
		r.failed = true
		return ""
	}
	return symbols[b>>1]
}

// readIsSet reads which branch of a union with null follows.
func (r *fieldReader) readIsSet() bool {
	b := r.readByte()
	r.failed = r.failed || b != 0 && b != 2
	return b == 2
}

func (r *fieldReader) readOptionalLong() *int64 {
	if !r.readIsSet() {
		return nil
	}
	v := r.readLong()
	return &v
}

func (r *fieldReader) readOptionalInt() *int32 {
	if !r.readIsSet() {
		return nil
	}
	v := r.readInt()
	return &v
}

// readCount reads the number of items of an array or map that has at most one block, and
// whose items take at least size bytes.
func (r *fieldReader) readCount(size int) int {
	n := r.readLong()
	if n < 0 || n > int64(len(r.rest)/size) {
		r.failed = true
		return 0
	}
	return int(n)
}

func (r *fieldReader) readTexts() []string {
	n := r.readCount(1)
	texts := make([]string, n)
	for i := range texts {
		texts[i] = r.readText()
	}
	if n > 0 {
		r.failed = r.readByte() != 0 || r.failed // no further block
	}
	return texts
}

func (r *fieldReader) readPairs() map[string]string {
	n := r.readCount(2)
	pairs := make(map[string]string, n)
	for range n {
		key := r.readText()
		pairs[key] = r.readText()
	}
	if n > 0 {
		r.failed = r.readByte() != 0 || r.failed // no further block
	}
	return pairs
}

// readFixed reads as many bytes as dst has.
func (r *fieldReader) readFixed(dst []byte) {
	if len(r.rest) < len(dst) {
		r.failed = true
		return
	}
	copy(dst, r.rest)
	r.rest = r.rest[len(dst):]
}

// The symbols of the enums, in the order of the schema.
var (
	tokenStatuses = []TokenStatus{TokenAppended, TokenWithheld, TokenOff}
	triggers      = []Trigger{TriggerLink, TriggerQR}
	types         = Types()
	verdicts      = Verdicts()
	reviews       = Reviews()
)

func (r *fieldReader) readClick(k *Click) {
	r.readVisit(k)
	r.readLinkPart(k)
}

func (r *fieldReader) readVisit(k *Click) {
	k.ClickToken = r.readText()
	k.ClickedAt = Millis(r.readLong())
	k.TokenStatus = readSymbol(r, tokenStatuses)
	k.TokenReason = r.readText()
	k.Trigger = readSymbol(r, triggers)
	k.Sub1 = r.readText()
	k.Sub2 = r.readText()
	k.Sub3 = r.readText()
	k.Sub4 = r.readText()
	k.Sub5 = r.readText()
	k.ReferrerHost = r.readText()
	k.Country = r.readText()
	k.Device = r.readText()
	k.OS = r.readText()
	k.Browser = r.readText()
	k.IsBot = r.readFlag()
	k.BotReason = r.readText()
}

// readLinkPart reads what is the same for all visits of a link.
func (r *fieldReader) readLinkPart(k *Click) {
	k.WorkspaceID = r.readText()
	k.WindowMs = r.readLong()
	k.FollowMs = r.readLong()
	k.OneSalePerOrder = r.readFlag()
	k.LinkID = r.readText()
	k.Domain = r.readText()
	k.Slug = r.readText()
	k.Destination = r.readText()
	k.PartnerID = r.readText()
	k.PartnerKey = r.readText()
	k.PartnerName = r.readText()
	k.PartnerRelationship = r.readText()
	k.PartnerLifecycle = r.readText()
	k.ProgramID = r.readText()
	k.ProgramKey = r.readText()
	k.ProgramName = r.readText()
	k.ProgramStatus = r.readText()
	k.AssignmentID = r.readText()
	k.AssignedAt = Millis(r.readLong())
	k.RewardTerms = r.readText()
	k.UTMSource = r.readText()
	k.UTMMedium = r.readText()
	k.UTMCampaign = r.readText()
	k.UTMTerm = r.readText()
	k.UTMContent = r.readText()
	k.Experiment = r.readText()
	k.Variant = r.readText()
	k.CatalogOffset = r.readLong()
}

func (r *fieldReader) readConversion(v *Conversion) {
	v.WorkspaceID = r.readText()
	v.EventID = r.readText()
	v.ClickToken = r.readText()
	v.Type = readSymbol(r, types)
	v.EventName = r.readText()
	v.OccurredAt = Millis(r.readLong())
	v.ReceivedAt = Millis(r.readLong())
	v.AmountMinor = r.readOptionalLong()
	v.Currency = r.readText()
	v.Exponent = r.readInt()
	v.Quantity = r.readOptionalInt()
	v.OrderID = r.readText()
	v.ParentEventID = r.readText()
	v.ReasonText = r.readText()
	v.CustomerRef = r.readText()
	v.Metadata = r.readPairs()
	r.readFixed(v.ContentSHA256[:])
	v.KeyID = r.readText()
	v.EnteredAt = Millis(r.readLong())
	v.CustomerHash = []byte(r.readText())
	v.References = r.readTexts()
	v.ResolvedBy = ResolvedBy(r.readText())
	v.ReferenceAmbiguous = r.readFlag()
}

func (r *fieldReader) readOutcome(o *Outcome) {
	o.WorkspaceID = r.readText()
	o.EventID = r.readText()
	o.ClickToken = r.readText()
	o.Verdict = readSymbol(r, verdicts)
	o.Reason = r.readText()
	o.Flags = r.readTexts()
	o.Review = readSymbol(r, reviews)
	o.Type = readSymbol(r, types)
	o.EventName = r.readText()
	o.Effect = r.readInt()
	o.OccurredAt = Millis(r.readLong())
	o.ReceivedAt = Millis(r.readLong())
	o.DecidedAt = Millis(r.readLong())
	o.AmountMinor = r.readOptionalLong()
	o.Currency = r.readText()
	o.Exponent = r.readInt()
	o.Quantity = r.readOptionalInt()
	o.OrderID = r.readText()
	o.ParentEventID = r.readText()
	o.ParentType = r.readText()
	o.ReasonText = r.readText()
	o.CustomerRef = r.readText()
	o.EstimatedRewardMinor = r.readOptionalLong()
	o.RewardCurrency = r.readText()
	r.readFixed(o.ContentSHA256[:])
	o.EventPartition = r.readInt()
	o.EventOffset = r.readLong()
	o.FirstOffset = r.readOptionalLong()
	o.RulesVersion = r.readInt()
	o.StandingChangeMinor = r.readOptionalLong()
	o.Metadata = r.readPairs()
	o.ResolvedBy = ResolvedBy(r.readText())
	if r.readIsSet() {
		o.Click = new(Click)
		r.readClick(o.Click)
	}
}
