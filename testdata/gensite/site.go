package main

import (
	"bytes"
	"fmt"
	"html"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"strings"
)

const articles = 240

var topics = []string{"balsa", "currents", "knots", "landfall", "navigation", "provisions", "sails", "stars", "storms", "timber"}

type article struct {
	slug, title, topic, date string
	paragraphs               []string
}

// site gives every file by its path.
func site() map[string][]byte {
	all := make([]article, articles)
	for i := range all {
		all[i] = newArticle(i)
	}
	files := map[string][]byte{
		"index.html":          page("Drift", "", list(all[:12])),
		"about.html":          page("About Drift", "", "<p>Drift is a magazine about rafts and the people who trust them.</p>"),
		"404.html":            page("Lost at sea", "", "<p>This page drifted away. <a href=\"/\">Back to the shore</a>.</p>"),
		"archive/index.html":  page("Archive", "", list(all)),
		"robots.txt":          []byte("User-agent: *\nAllow: /\n"),
		"feed.xml":            feed(all[:20]),
		"articles/index.json": index(all),
		"assets/style.css":    []byte(stylesheet),
		"assets/search.js":    []byte(script),
		"assets/logo.svg":     []byte(logo),
		"assets/favicon.png":  picture(32, 0),
	}
	for i, a := range all {
		files["articles/"+a.slug+"/index.html"] = page(a.title, a.topic, body(a))
		if i%6 == 0 {
			files[fmt.Sprintf("assets/plates/%s.png", a.slug)] = picture(48, i+1)
		}
	}
	for _, t := range topics {
		var of []article
		for _, a := range all {
			if a.topic == t {
				of = append(of, a)
			}
		}
		files["topics/"+t+"/index.html"] = page("Topic: "+t, t, list(of))
	}
	return files
}

func page(title, topic, main string) []byte {
	class := ""
	if topic != "" {
		class = fmt.Sprintf(" class=%q", topic)
	}
	return fmt.Appendf(nil, `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="edition" content="first">
<title>%s</title>
<link rel="icon" href="/assets/favicon.png">
<link rel="stylesheet" href="/assets/style.css">
<script src="/assets/search.js" defer></script>
</head>
<body%s>
<header><a href="/"><img src="/assets/logo.svg" alt="" width="48" height="32">Drift</a>
<nav><a href="/archive/">Archive</a> <a href="/about.html">About</a> <a href="/feed.xml">Feed</a></nav></header>
<main>
<h1>%s</h1>
%s
</main>
<footer>Set in whatever type your raft carries.</footer>
</body>
</html>
`, html.EscapeString(title), class, html.EscapeString(title), main)
}

func body(a article) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<p class=\"byline\"><time datetime=%q>%s</time> in <a href=\"/topics/%s/\">%s</a></p>\n", a.date, a.date, a.topic, a.topic)
	for _, p := range a.paragraphs {
		fmt.Fprintf(&b, "<p>%s</p>\n", html.EscapeString(p))
	}
	return b.String()
}

func list(all []article) string {
	var b strings.Builder
	b.WriteString("<ul class=\"articles\">\n")
	for _, a := range all {
		fmt.Fprintf(&b, "<li><a href=\"/articles/%s/\">%s</a> <time datetime=%q>%s</time></li>\n", a.slug, html.EscapeString(a.title), a.date, a.date)
	}
	b.WriteString("</ul>")
	return b.String()
}

func feed(all []article) []byte {
	var b bytes.Buffer
	b.WriteString("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<rss version=\"2.0\"><channel><title>Drift</title><link>/</link><description>Rafts and voyages</description>\n")
	for _, a := range all {
		fmt.Fprintf(&b, "<item><title>%s</title><link>/articles/%s/</link></item>\n", html.EscapeString(a.title), a.slug)
	}
	b.WriteString("</channel></rss>\n")
	return b.Bytes()
}

func index(all []article) []byte {
	lines := make([]string, len(all))
	for i, a := range all {
		lines[i] = fmt.Sprintf("{\"slug\":%q,\"title\":%q,\"topic\":%q}", a.slug, a.title, a.topic)
	}
	return []byte("[\n" + strings.Join(lines, ",\n") + "\n]\n")
}

// picture draws a small pattern of waves; the seed varies it.
func picture(size, seed int) []byte {
	img := image.NewPaletted(image.Rect(0, 0, size, size), color.Palette{
		color.RGBA{R: 11, G: 57, B: 84, A: 255}, color.RGBA{R: 90, G: 169, B: 205, A: 255},
		color.RGBA{R: 240, G: 230, B: 200, A: 255}, color.RGBA{R: 200, G: 120, B: 60, A: 255}})
	for y := range size {
		for x := range size {
			img.SetColorIndex(x, y, uint8((x*x/(seed%9+3)+y*(seed%5+2)+seed)/8%4))
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		panic(err) // a buffer takes every byte
	}
	return b.Bytes()
}

func newArticle(i int) article {
	r := rand.New(rand.NewPCG(1947, uint64(i)))
	a := article{topic: topics[i%len(topics)]}
	a.title = sentence(r, 3+r.IntN(3))
	a.slug = fmt.Sprintf("%03d-%s", i+1, strings.ReplaceAll(strings.ToLower(a.title), " ", "-"))
	a.date = fmt.Sprintf("%d-%02d-%02d", 2004+i/12, 1+i%12, 1+r.IntN(28))
	for range 3 + r.IntN(5) {
		var p []string
		for range 3 + r.IntN(4) {
			p = append(p, sentence(r, 7+r.IntN(9))+".")
		}
		a.paragraphs = append(a.paragraphs, strings.Join(p, " "))
	}
	return a
}

func sentence(r *rand.Rand, words int) string {
	all := make([]string, words)
	for i := range all {
		all[i] = vocabulary[r.IntN(len(vocabulary))]
	}
	all[0] = strings.ToUpper(all[0][:1]) + all[0][1:]
	return strings.Join(all, " ")
}
