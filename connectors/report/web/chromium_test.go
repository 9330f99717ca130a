package web

import (
	"cmp"
	"context"
	"image"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// chromium is how a test has a browser load a page; its answer is what the browser
// prints. The test ends here where there is no browser.
func chromium(t *testing.T) (browse func(args ...string) string) {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("PARTNERS_REQUIRE_CHROMIUM") == "1" {
			t.Fatal("PARTNERS_REQUIRE_CHROMIUM=1, and there is no chromium in PATH")
		}
		t.Skip("SKIP: no chromium in PATH (Debian: apt-get install chromium)")
	}
	dir := t.TempDir()
	return func(args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, chromium,
			append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--user-data-dir=" +
				filepath.Join(dir, "profile")}, args...)...)
		cmd.WaitDelay = 5 * time.Second
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return string(out)
	}
}

// A browser draws the page, on a phone and on a wide screen, light and dark, without an
// error.
func TestChromium(t *testing.T) {
	browse := chromium(t)
	r := newRig(t)
	// The browser cannot send a bearer token: this is who signs in for it.
	signedIn := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		req.Header.Set("Authorization", "Bearer secret of acme")
		r.server.ServeHTTP(w, req)
	}))
	defer signedIn.Close()
	dir := cmp.Or(os.Getenv("PARTNERS_TEST_SHOTS"), t.TempDir())
	page := signedIn.URL + "/?from=2026-03-01&to=2026-03-20"
	if dom := browse("--dump-dom", page); !strings.Contains(dom, "Nomura") || !strings.Contains(dom, "<svg viewBox") ||
		!strings.Contains(dom, "Conversion rows") {
		t.Errorf("the browser's document is not the page: %.500s", dom)
	}
	for name, args := range map[string][]string{"phone": {"--window-size=380,900"},
		"wide": {"--window-size=1600,1200"}, "dark": {"--window-size=1600,1200",
			"--blink-settings=preferredColorScheme=0"}} {
		file := filepath.Join(dir, name+".png")
		browse(append(args, "--screenshot="+file, page)...)
		img := checkDrawn(t, file, name == "phone")
		cr, _, _, _ := img.At(2, img.Bounds().Dy()-2).RGBA()
		if dark := cr < 0x6000; dark != (name == "dark") {
			t.Errorf("%s: the background's red is %x", name, cr)
		}
	}
	statement := signedIn.URL + "/statement?month=2026-03"
	if dom := browse("--dump-dom", statement); !strings.Contains(dom, "Nomura") || !strings.Contains(dom, "= Closing") {
		t.Errorf("the browser's document is not the statement: %.500s", dom)
	}
	for name, args := range map[string][]string{"statement-phone": {"--window-size=380,1400"},
		"statement-wide": {"--window-size=1600,900"}} {
		file := filepath.Join(dir, name+".png")
		browse(append(args, "--screenshot="+file, statement)...)
		checkDrawn(t, file, name == "statement-phone")
	}
}

// checkDrawn checks that a picture shows something; on a phone of 380 pixels, also that
// nothing is wider than its card.
func checkDrawn(t *testing.T, file string, phone bool) image.Image {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	colours := map[[3]uint32]int{}
	for y := 0; y < img.Bounds().Dy(); y += 3 {
		for x := 0; x < img.Bounds().Dx(); x += 3 {
			cr, cg, cb, _ := img.At(x, y).RGBA()
			colours[[3]uint32{cr, cg, cb}]++
		}
	}
	if len(colours) < 50 {
		t.Errorf("%s: only %d colours: nothing was drawn", file, len(colours))
	}
	if !phone {
		return img
	}
	// beside the cards there is nothing but the background and a faint shadow
	const x = 370
	for y := 130; y < img.Bounds().Dy(); y++ {
		r1, g1, b1, _ := img.At(x, y).RGBA()
		if r1 < 0xea00 || g1 < 0xea00 || b1 < 0xea00 {
			t.Errorf("%s: something sticks out of its card at %d, %d: %x %x %x", file, x, y, r1, g1, b1)
			break
		}
	}
	return img
}
