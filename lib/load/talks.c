/* An array by session number: most runs use neither headers nor answers and pay one NULL. */
#include "lib/load/talks.h"

#include <stdlib.h>
#include <string.h>

static void talk_free(struct talk *k)
{
	if (!k)
		return;
	for (size_t i = 0; i < TALK_HEADERS_MAX; i++)
		free(k->header[i]);
	for (size_t i = 0; i < k->nanswers; i++)
		free(k->answer[i]);
	free(k->answer);
	free(k);
}

void talks_release(struct talks *t)
{
	for (size_t i = 0; i < t->n; i++)
		talk_free(t->talk[i]);
	free(t->talk);
	*t = (struct talks){0};
}

const struct talk *talks_find(const struct talks *t, uint32_t session)
{
	return session < t->n ? t->talk[session] : NULL;
}

struct talk *talks_get(struct talks *t, uint32_t session)
{
	size_t cap = t->n ? t->n : 64;
	struct talk **p;

	while (session >= cap)
		cap *= 2;
	if (cap > t->n) {
		p = realloc(t->talk, cap * sizeof(struct talk *));
		if (!p)
			return NULL;
		memset(p + t->n, 0, (cap - t->n) * sizeof(struct talk *));
		t->talk = p;
		t->n = cap;
	}
	if (!t->talk[session])
		t->talk[session] = calloc(1, sizeof(struct talk));
	return t->talk[session];
}

int talk_set_header(struct talk *k, size_t which, struct span value)
{
	char *copy = strndup(value.p, value.n);

	if (!copy)
		return PD_ENOMEM;
	free(k->header[which]);
	k->header[which] = copy;
	return PD_OK;
}

int talk_add_answer(struct talk *k, struct span text)
{
	size_t cap = k->cap ? k->cap * 2 : 8;
	char **p, *copy;

	if (text.n > TALK_BYTES_MAX - k->bytes)
		return PD_ETOOBIG;
	if (k->nanswers == k->cap) {
		p = realloc(k->answer, cap * sizeof(char *));
		if (!p)
			return PD_ENOMEM;
		k->answer = p;
		k->cap = cap;
	}
	copy = strndup(text.n ? text.p : "", text.n);
	if (!copy)
		return PD_ENOMEM;
	k->answer[k->nanswers++] = copy;
	k->bytes += text.n;
	return PD_OK;
}
