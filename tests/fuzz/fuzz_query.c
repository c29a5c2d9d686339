/*
 * Queries of the router's own routes: any target is read within its bounds and never grows, and a
 * value that was percent-encoded comes back byte for byte, whatever stands before and after it.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/router/admin/admin.h"

#define INPUT_MAX 2048

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static int ask(const char *target, size_t n, struct buf *out)
{
	const char *mark = memchr(target, '?', n);
	struct http_request r = {0};

	r.head.target = (struct span){target, n};
	r.head.path = (struct span){target, mark ? (size_t)(mark - target) : n};
	buf_clear(out);
	return admin_query(&r, "url", out);
}

static void fail(const char *what)
{
	fprintf(stderr, "fuzz_query: %s\n", what);
	abort();
}

/* "/p?" other parameters "&url=" the input encoded "&url=other" */
static void round_trip(const uint8_t *data, size_t n, struct buf *out)
{
	static const char *const before[] = {"", "a=1&", "&&", "urls=x&", "xurl=y&b&"};
	struct buf b;
	int err;

	buf_init(&b, 4 * INPUT_MAX);
	err = buf_printf(&b, "/p?%surl=", before[n % 5]);
	for (size_t i = 0; i < n; i++)
		err = err ? err : buf_printf(&b, "%%%02X", data[i]);
	err = err ? err : buf_puts(&b, n % 2 ? "&url=other" : "");
	if (err || ask(b.data, b.len, out))
		fail("a parameter that is there was not found");
	if (out->len != n || (n > 0 && memcmp(out->data, data, n) != 0))
		fail("the value is not what was encoded");
	buf_release(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct buf out;
	char *copy;

	if (n > INPUT_MAX)
		return 0;
	/* Exactly as long, so that a read beyond the end is seen. */
	copy = malloc(n ? n : 1);
	if (!copy)
		return 0;
	memcpy(copy, data, n);
	buf_init(&out, INPUT_MAX);
	if (ask(copy, n, &out) == PD_OK && out.len > n)
		fail("the value grew");
	round_trip(data, n, &out);
	buf_release(&out);
	free(copy);
	return 0;
}
