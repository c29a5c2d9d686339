/* Any bytes as an answer: the first byte chooses stream or body, the interface and the size of the
 * pieces; counts must not depend on the pieces, and the text is the inside of a JSON string. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/json/scan.h"
#include "lib/load/answer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void feed(struct answer *a, const uint8_t *data, size_t n, size_t piece, bool streamed)
{
	answer_clear(a);
	a->status = 200;
	a->streamed = streamed;
	for (size_t at = 0; at < n; at += piece)
		answer_feed(a, (const char *)data + at, n - at < piece ? n - at : piece,
			    (int64_t)at);
	answer_end(a, (int64_t)n, true);
}

static void check_text(const struct buf *text)
{
	struct buf quoted;

	buf_init(&quoted, ANSWER_BODY_MAX);
	if (buf_puts(&quoted, "\"") ||
	    buf_append(&quoted, text->data ? text->data : "", text->len) ||
	    buf_puts(&quoted, "\"") || json_validate(quoted.data, quoted.len, NULL))
		abort();
	buf_release(&quoted);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct answer whole, pieces;
	bool streamed;

	if (n < 1)
		return 0;
	streamed = (data[0] & 1) == 0;
	answer_init(&whole, (enum answer_api)(data[0] >> 5 & 3), true);
	answer_init(&pieces, (enum answer_api)(data[0] >> 5 & 3), true);
	feed(&whole, data + 1, n - 1, n, streamed);
	feed(&pieces, data + 1, n - 1, (size_t)(data[0] >> 1 & 15) + 1, streamed);
	if (whole.pieces != pieces.pieces || whole.ngaps != pieces.ngaps ||
	    whole.completion_tokens != pieces.completion_tokens || whole.done != pieces.done ||
	    (whole.failure == NULL) != (pieces.failure == NULL) ||
	    !span_eq(buf_span(&whole.text), buf_span(&pieces.text)))
		abort();
	if (whole.failure && strcmp(whole.failure, pieces.failure) != 0)
		abort();
	check_text(&whole.text);
	if (!whole.failure && streamed && whole.pieces == 0)
		abort();
	for (size_t i = 0; i < pieces.ngaps; i++)
		if (pieces.gap[i].ns < 0 || pieces.gap[i].tokens < -1)
			abort();
	answer_release(&whole);
	answer_release(&pieces);
	return 0;
}
