#include <stdlib.h>
#include <string.h>

#include "lib/route/pool.h"

/* A field with both texts in one block of memory, which name.p owns. */
static int make(struct field *out, struct span name, struct span value)
{
	char *text = malloc(name.n + value.n + 2);

	if (!text)
		return PD_ENOMEM;
	memcpy(text, name.p, name.n);
	text[name.n] = '\0';
	if (value.n > 0)
		memcpy(text + name.n + 1, value.p, value.n);
	text[name.n + 1 + value.n] = '\0';
	*out = (struct field){{text, name.n}, {text + name.n + 1, value.n}, 0};
	return PD_OK;
}

int route_labels_set(struct route_labels *l, struct span name, struct span value)
{
	struct field fresh, *grown;
	size_t i = 0;

	if (name.n == 0 || name.n > ROUTE_LABEL_TEXT_MAX || value.n > ROUTE_LABEL_TEXT_MAX)
		return PD_ETOOBIG;
	while (i < l->n && !span_eq(l->label[i].name, name))
		i++;
	if (i == ROUTE_LABELS_MAX)
		return PD_ETOOBIG;
	if (make(&fresh, name, value))
		return PD_ENOMEM;
	if (i < l->n) {
		free((char *)(uintptr_t)l->label[i].name.p);
		l->label[i] = fresh;
		return PD_OK;
	}
	grown = reallocarray(l->label, l->n + 1, sizeof(*grown));
	if (!grown) {
		free((char *)(uintptr_t)fresh.name.p);
		return PD_ENOMEM;
	}
	l->label = grown;
	l->label[l->n++] = fresh;
	return PD_OK;
}

int route_labels_copy(struct route_labels *to, const struct route_labels *from)
{
	int err = PD_OK;

	*to = (struct route_labels){0};
	for (size_t i = 0; !err && i < from->n; i++)
		err = route_labels_set(to, from->label[i].name, from->label[i].value);
	if (err)
		route_labels_release(to);
	return err;
}

void route_labels_release(struct route_labels *l)
{
	for (size_t i = 0; i < l->n; i++)
		free((char *)(uintptr_t)l->label[i].name.p);
	free(l->label);
	*l = (struct route_labels){0};
}

struct span route_label(const struct route_labels *l, struct span name)
{
	for (size_t i = 0; i < l->n; i++)
		if (span_eq(l->label[i].name, name))
			return l->label[i].value;
	return (struct span){NULL, 0};
}

bool route_labels_same(const struct route_labels *a, const struct route_labels *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++) {
		struct span v = route_label(b, a->label[i].name);

		if (!v.p || !span_eq(v, a->label[i].value))
			return false;
	}
	return true;
}
