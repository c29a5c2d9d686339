/* A setting is the text of the keys that vary within a side, so a table says what the reader swept
 * and nothing else. */
#include "lib/results/compare_sweep.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/results/compare_config.h"

#define VALUE_CAP 64
#define TEXT_CAP  sizeof(((struct compare *)NULL)->setting)

static const char *const keys[] = {"request_rate", "max_concurrency", "burstiness", "strategy",
				   "pdctl.arm"};
#define KEYS (sizeof(keys) / sizeof(keys[0]))

/* What a run has for a key, numbers in one spelling; arms of a simulation differ by their label. */
static void value_of(const struct result_doc *d, size_t key, char out[VALUE_CAP])
{
	const struct result_field *sim = result_get(d, "pdctl.simulated"), *f;
	const char *label = result_text(d, "label");

	if (strcmp(keys[key], "pdctl.arm") == 0) {
		(void)snprintf(out, VALUE_CAP, "%.60s",
			       sim && sim->number > 0 && label ? label : "");
		return;
	}
	f = result_get(d, keys[key]);
	if (f && f->type == RESULT_NUMBER)
		(void)snprintf(out, VALUE_CAP, "%.10g", f->number);
	else
		(void)snprintf(out, VALUE_CAP, "%.60s",
			       f && f->type != RESULT_NULL ? f->text : "none");
}

static bool varies(const struct compare *c, size_t key)
{
	char first[VALUE_CAP] = "", other[VALUE_CAP] = "";

	for (size_t i = 0; i < c->nsides; i++)
		for (size_t r = 0; r < c->side[i].runs.n; r++) {
			value_of(&c->side[i].runs.doc[r], key, r ? other : first);
			if (r && strcmp(first, other) != 0)
				return true;
		}
	return false;
}

struct sweep {
	bool varies[KEYS];
	char (*text)[TEXT_CAP]; /* owned; the settings of one side in order of appearance */
	size_t n;
};

static void setting_of(const struct sweep *s, const struct result_doc *d, char out[TEXT_CAP])
{
	size_t n = 0;

	out[0] = '\0';
	for (size_t k = 0; k < KEYS; k++) {
		const char *name = strncmp(keys[k], "pdctl.", 6) == 0 ? keys[k] + 6 : keys[k];
		char value[VALUE_CAP];

		if (!s->varies[k] || n >= TEXT_CAP - 1)
			continue;
		value_of(d, k, value);
		n += (size_t)snprintf(out + n, TEXT_CAP - n, "%s%s %s", n ? ", " : "", name, value);
	}
}

static size_t position(const struct sweep *s, const char *setting)
{
	size_t i = 0;

	while (i < s->n && strcmp(s->text[i], setting) != 0)
		i++;
	return i;
}

static int list_settings(struct sweep *s, const struct result_set *runs)
{
	s->text = calloc(runs->n ? runs->n : 1, sizeof(*s->text));
	if (!s->text)
		return PD_ENOMEM;
	for (size_t r = 0; r < runs->n; r++) {
		char text[TEXT_CAP];

		setting_of(s, &runs->doc[r], text);
		if (position(s, text) == s->n)
			memcpy(s->text[s->n++], text, sizeof(text));
	}
	return PD_OK;
}

/* Says which settings are not on both sides; returns how many are. */
static size_t compare_lists(struct compare *c, const struct sweep *base, const struct sweep *other,
			    size_t side, bool allowed)
{
	const struct sweep *lists[] = {base, other};
	size_t common = 0;

	for (int k = 0; k < 2; k++)
		for (size_t i = 0; i < lists[k]->n; i++) {
			const char *text = lists[k]->text[i];

			if (position(lists[1 - k], text) < lists[1 - k]->n) {
				common += k == 0;
				continue;
			}
			(allowed ? compare_note
				 : compare_refuse)(c, "settings differ: %s is only in %s", text,
						   k == 0 ? c->side[0].label : c->side[side].label);
		}
	return common;
}

/* Moves the runs of one side to the parts; `in_order`: the i-th setting of the side goes to part i.
 */
static int deal(struct compare *all, size_t side, const struct sweep *base, const struct sweep *own,
		bool in_order, struct compare *part)
{
	struct result_set *runs = &all->side[side].runs;
	int err = PD_OK;

	for (size_t r = 0; !err && r < runs->n; r++) {
		char text[TEXT_CAP];
		struct compare_side *to;
		size_t at;

		setting_of(own, &runs->doc[r], text);
		at = position(in_order ? own : base, text);
		if (at >= base->n)
			continue;
		err = compare_side_named(&part[at], span_of(all->side[side].label), &to, NULL);
		if (!err)
			err = result_take(&to->runs, &runs->doc[r]);
	}
	return err;
}

/* Parts without all sides are of no use. */
static size_t drop_incomplete(struct compare *part, size_t n, size_t nsides)
{
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		if (part[i].nsides < nsides) {
			compare_release(&part[i]);
			continue;
		}
		if (kept < i) {
			part[kept] = part[i];
			memset(&part[i], 0, sizeof(part[i]));
		}
		kept++;
	}
	return kept;
}

static int split(struct compare *all, struct sweep *sweep, bool allowed, size_t max,
		 struct compare **part, size_t *n, struct pd_msg *msg)
{
	const struct sweep *base = &sweep[0];
	bool in_order = false;
	int err = PD_OK;

	if (base->n > max)
		return pd_fail(msg, PD_ETOOBIG, "found %zu settings, expected at most %zu", base->n,
			       max);
	for (size_t i = 1; i < all->nsides; i++) {
		size_t common = compare_lists(all, base, &sweep[i], i, allowed);

		in_order = in_order || (allowed && common == 0 && sweep[i].n == base->n);
	}
	if (all->nreasons > 0)
		return PD_OK;
	*part = calloc(base->n, sizeof(**part));
	if (!*part)
		return PD_ENOMEM;
	for (size_t i = 0; i < base->n; i++) {
		compare_init(&(*part)[i], &all->rules);
		memcpy((*part)[i].setting, base->text[i], TEXT_CAP);
	}
	*n = base->n;
	for (size_t i = 0; !err && i < all->nsides; i++)
		err = deal(all, i, base, &sweep[i], in_order, *part);
	*n = drop_incomplete(*part, base->n, all->nsides);
	for (size_t i = 0; *n > 0 && i < all->nnotes; i++)
		compare_note(&(*part)[0], "%s", all->note[i]);
	if (!err && *n == 0)
		err = pd_fail(msg, PD_ENOENT, "the sides have no setting in common");
	return err;
}

/* Everything in one part. */
static int whole(struct compare *all, struct compare **part, size_t *n)
{
	*part = malloc(sizeof(**part));
	if (!*part)
		return PD_ENOMEM;
	**part = *all;
	*n = 1;
	compare_init(all, &(*part)->rules);
	return PD_OK;
}

int compare_split(struct compare *all, const char *allow, size_t max, struct compare **part,
		  size_t *n, struct pd_msg *msg)
{
	struct sweep sweep[COMPARE_SIDES_MAX] = {0};
	bool any = false;
	int err = PD_OK;

	*part = NULL;
	*n = 0;
	for (size_t k = 0; k < KEYS; k++)
		if (varies(all, k))
			sweep[0].varies[k] = any = true;
	for (size_t i = 0; any && !err && i < all->nsides; i++) {
		memcpy(sweep[i].varies, sweep[0].varies, sizeof(sweep[0].varies));
		err = list_settings(&sweep[i], &all->side[i].runs);
	}
	if (!err && any)
		err = split(all, sweep,
			    compare_list_has(allow, "settings", 8) ||
				    compare_list_has(allow, "all", 3),
			    max, part, n, msg);
	if (!err && *n == 0)
		err = whole(all, part, n);
	for (size_t i = 0; i < COMPARE_SIDES_MAX; i++)
		free(sweep[i].text);
	compare_release(all);
	return err;
}
