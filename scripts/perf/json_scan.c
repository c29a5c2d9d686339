/*
 * How fast the scanner reads: chat text, escaped text, Chinese, token ids, and what one request
 * costs (scan and key).
 *
 *   make build/scripts/perf/json_scan && build/scripts/perf/json_scan
 *
 * Each figure is the best of several rounds, because only slowness has causes outside the program.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/base/buf.h"
#include "lib/base/rng.h"
#include "lib/json/scan.h"
#include "lib/route/decide.h"
#include "lib/route/key/key_extract.h"

static double now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* An append that must succeed: there is memory for one body. */
static void put(struct buf *b, const char *text)
{
	if (buf_puts(b, text) != 0)
		abort();
}

static void chat(struct buf *b, size_t want, const char *word, const char *seldom)
{
	unsigned n = 0;

	put(b, "{\"model\":\"m\",\"stream\":true,\"messages\":[");
	do {
		put(b, n++ ? ",{\"role\":\"user\",\"content\":\""
			   : "{\"role\":\"system\",\"content\":\"");
		for (int i = 0; i < 60; i++)
			put(b, i % 12 == 11 ? seldom : word);
		put(b, "\"}");
	} while (b->len < want);
	put(b, "],\"session_params\":{\"session_id\":\"session-123\"},\"user\":\"alice\",\"max_"
	       "tokens\":100}");
}

static void tokens(struct buf *b, size_t want, const char *comma)
{
	char number[16];
	struct rng r;

	rng_seed(&r, 1);
	put(b, "{\"prompt\":[1");
	while (b->len < want) {
		(void)snprintf(number, sizeof(number), "%s%u", comma,
			       (unsigned)rng_below(&r, rng_below(&r, 4) ? 150000 : 2000));
		put(b, number);
	}
	put(b, "],\"max_tokens\":100}");
}

static double scan_time(const struct buf *b, bool with_key)
{
	int rounds = (int)(20000000 / b->len) + 1;
	struct route_keyspec spec;
	struct route_key key;
	struct json_object o;
	double start;

	route_keyspec_default(&spec);
	start = now();
	for (int i = 0; i < rounds; i++) {
		if (json_object_scan(&o, b->data, b->len, NULL) != 0)
			abort();
		if (with_key)
			route_key_extract(&spec, NULL, 0, &o, &key);
		json_object_release(&o);
	}
	return (now() - start) / rounds;
}

static void report(const char *what, struct buf *b)
{
	double best = 1e9, best_key = 1e9;

	for (int i = 0; i < 7; i++) {
		double t = scan_time(b, false), k = scan_time(b, true);

		best = t < best ? t : best;
		best_key = k < best_key ? k : best_key;
	}
	printf("%-28s %9zu bytes  %6.2f GB/s  %9.3f us  with key %9.3f us\n", what, b->len,
	       (double)b->len / best * 1e-9, best * 1e6, best_key * 1e6);
	buf_release(b);
}

int main(void)
{
	struct buf b;

	buf_init(&b, 64 << 20);
	chat(&b, 1000, "some words ", "end.\\n");
	report("chat", &b);
	chat(&b, 1 << 20, "some words ", "end.\\n");
	report("chat, long", &b);
	chat(&b, 1 << 20, "\\u4f60\\u597d", "\\n");
	report("escaped Chinese", &b);
	chat(&b, 1 << 20, "\xe4\xbd\xa0\xe5\xa5\xbd", "\\n");
	report("Chinese", &b);
	chat(&b, 1 << 20, "caf\xc3\xa9 ", "\\\"");
	report("accents", &b);
	tokens(&b, 1 << 20, ",");
	report("token ids", &b);
	tokens(&b, 1 << 20, ", ");
	report("token ids with spaces", &b);
	return 0;
}
