/* Levenshtein distance with one row: the words are short, so no cleverer search is worth its lines.
 */
#include "lib/base/nearest.h"

#include <string.h>

static size_t min3(size_t a, size_t b, size_t c)
{
	size_t m = a < b ? a : b;

	return m < c ? m : c;
}

/* 64 for words that do not fit. */
static size_t distance(const char *a, const char *b)
{
	size_t row[64], n = strlen(b), diagonal, above;

	if (n >= 64 || strlen(a) >= 64)
		return 64;
	for (size_t j = 0; j <= n; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= n; j++) {
			above = row[j];
			row[j] = min3(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
			diagonal = above;
		}
	}
	return row[n];
}

const char *nearest_word(const char *word, const char *const *words)
{
	const char *best = NULL;
	size_t d, limit = strlen(word) / 3 + 2;

	for (; *words; words++) {
		d = distance(word, *words);
		if (d < limit) {
			limit = d;
			best = *words;
		}
	}
	return best;
}
