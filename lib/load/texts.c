/* A worker's name comes with every answer: a table of names keeps one copy of each, and the records
 * compare and count pointers' texts without owning them. */
#include "lib/load/texts.h"

#include <stdlib.h>
#include <string.h>

void texts_init(struct texts *t, struct load_outcome *out)
{
	*t = (struct texts){.out = out};
	names_init(&t->names);
}

void texts_release(struct texts *t)
{
	names_release(&t->names);
	free(t->at);
	*t = (struct texts){0};
}

const char *texts_own(struct texts *t, char *text)
{
	struct load_outcome *out = t->out;
	size_t cap = out->owned_cap ? out->owned_cap * 2 : 64;
	char **p;

	if (text && out->nowned == out->owned_cap) {
		p = realloc(out->owned, cap * sizeof(*p));
		if (!p) {
			free(text);
			text = NULL;
		} else {
			out->owned = p;
			out->owned_cap = cap;
		}
	}
	if (!text) {
		t->err = PD_ENOMEM;
		return NULL;
	}
	out->owned[out->nowned++] = text;
	return text;
}

static int make_room(struct texts *t, uint32_t number)
{
	size_t cap = t->cap ? t->cap * 2 : 64, *p;

	if (number < t->cap)
		return PD_OK;
	p = realloc(t->at, cap * sizeof(*p));
	if (!p)
		return PD_ENOMEM;
	t->at = p;
	t->cap = cap;
	return PD_OK;
}

const char *texts_intern(struct texts *t, const char *text)
{
	uint32_t before = t->names.n, number;
	char *copy;

	if (!text || !text[0])
		return NULL;
	if (t->last && strcmp(t->last, text) == 0)
		return t->last;
	copy = make_room(t, before) ? NULL : strdup(text);
	if (!copy || names_number(&t->names, span_of(copy), &number)) {
		free(copy);
		t->err = PD_ENOMEM;
		return NULL;
	}
	if (number < before) {
		free(copy);
		return t->last = t->out->owned[t->at[number]];
	}
	t->at[number] = t->out->nowned;
	/* on failure the run ends: nothing looks the name up again */
	return t->last = texts_own(t, copy);
}
