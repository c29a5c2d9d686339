/* Version, errors, bodies, and the key of a request. */
#include "lib/pdroute/pdroute_impl.h"

#include <stdlib.h>
#include <string.h>

#include "lib/route/pool.h"
#include "lib/route/prefix.h"

_Static_assert((int)PDROUTE_EINVAL == PD_EINVAL && (int)PDROUTE_ENOMEM == PD_ENOMEM &&
		       (int)PDROUTE_ETOOBIG == PD_ETOOBIG && (int)PDROUTE_ENOENT == PD_ENOENT &&
		       (int)PDROUTE_EBUSY == PD_EBUSY,
	       "the numbers are lib/base/err.h's");
_Static_assert(PDROUTE_MESSAGE_MAX == PD_MSG_MAX && PDROUTE_KEY_MAX == ROUTE_KEY_MAX &&
		       PDROUTE_WORKERS_MAX == ROUTE_WORKERS_MAX &&
		       PDROUTE_NAME_MAX == ROUTE_NAME_MAX,
	       "the bounds are lib/route's");

const char *pdroute_version(void)
{
	return PDROUTE_VERSION;
}

unsigned pdroute_version_number(void)
{
	return PDROUTE_VERSION_NUMBER;
}

const char *pdroute_error_text(int error)
{
	return pd_err_text(error);
}

int pdroute_fail(struct pdroute_message *to, const struct pd_msg *from, int err)
{
	const char *text = from->text[0] ? from->text : pd_err_text(err);

	if (to) {
		size_t n = strnlen(text, sizeof(to->text) - 1);

		memcpy(to->text, text, n);
		to->text[n] = '\0';
	}
	return err;
}

void pdroute_text_free(struct pdroute_text *t)
{
	if (!t)
		return;
	free(t->data);
	*t = (struct pdroute_text){NULL, 0};
}

/* -- where keys are, and bodies -- */

int pdroute_keys_new(struct pdroute_keys **out, const char *sources, const char *compat,
		     struct pdroute_message *msg)
{
	struct pdroute_keys *k;
	struct pd_msg why = {0};
	int err = PD_OK;

	if (!out || (compat && strcmp(compat, "vllm-router") != 0))
		return pdroute_fail(msg, &why,
				    pd_fail(&why, PD_EINVAL,
					    "found compat '%.60s', expected vllm-router",
					    compat ? compat : ""));
	k = calloc(1, sizeof(*k));
	if (!k)
		return pdroute_fail(msg, &why, PD_ENOMEM);
	route_keyspec_default(&k->spec);
	if (sources)
		err = route_keyspec_parse(&k->spec, sources, &why);
	if (err) {
		free(k);
		return pdroute_fail(msg, &why, err);
	}
	k->spec.compat = compat ? ROUTE_COMPAT_VLLM_ROUTER : ROUTE_COMPAT_NONE;
	*out = k;
	return PD_OK;
}

void pdroute_keys_free(struct pdroute_keys *k)
{
	free(k);
}

int pdroute_body_new(struct pdroute_body **out, const char *text, size_t size,
		     struct pdroute_message *msg)
{
	struct pd_msg why = {0};
	struct pdroute_body *b;
	int err;

	if (!out || !text)
		return pdroute_fail(msg, &why, PD_EINVAL);
	b = malloc(sizeof(*b));
	err = b ? json_object_scan(&b->object, text, size, &why) : PD_ENOMEM;
	if (err) {
		free(b);
		return pdroute_fail(msg, &why, err);
	}
	*out = b;
	return PD_OK;
}

void pdroute_body_free(struct pdroute_body *b)
{
	if (!b)
		return;
	json_object_release(&b->object);
	free(b);
}

/* -- requests -- */

int pdroute_request_new(struct pdroute_request **out)
{
	struct pdroute_request *r = out ? calloc(1, sizeof(*r)) : NULL;

	if (!r)
		return out ? PD_ENOMEM : PD_EINVAL;
	*out = r;
	return PD_OK;
}

void pdroute_request_free(struct pdroute_request *r)
{
	if (!r)
		return;
	pdroute_request_clear(r);
	free(r);
}

void pdroute_request_clear(struct pdroute_request *r)
{
	free(r->tried);
	free(r->model);
	free(r->block);
	free(r->field);
	*r = (struct pdroute_request){.ntried = 0};
}

static struct field *list_of(const struct pdroute_field *fields, size_t n)
{
	struct field *list = calloc(n + 1, sizeof(*list));

	for (size_t i = 0; list && i < n; i++)
		list[i] = (struct field){.name = {fields[i].name, fields[i].name_size},
					 .value = {fields[i].value, fields[i].value_size}};
	return list;
}

int pdroute_request_find_key(struct pdroute_request *r, const struct pdroute_keys *keys,
			     const struct pdroute_field *fields, size_t nfields,
			     const struct pdroute_body *body)
{
	struct field *list;

	if (!r || !keys || (!fields && nfields > 0))
		return PD_EINVAL;
	list = list_of(fields, nfields);
	if (!list)
		return PD_ENOMEM;
	route_key_extract(&keys->spec, list, nfields, body ? &body->object : NULL, &r->key);
	free(list);
	return PD_OK;
}

int pdroute_request_set_key(struct pdroute_request *r, const char *text, size_t size)
{
	if (!r || (!text && size > 0))
		return PD_EINVAL;
	route_key_of_text((struct span){text, size}, &r->key);
	return PD_OK;
}

int pdroute_request_key_from_prompt(struct pdroute_request *r, const struct pdroute_body *body)
{
	if (!r || !body)
		return PD_EINVAL;
	route_key_prefix(&body->object, &r->key);
	return PD_OK;
}

enum pdroute_level pdroute_request_key_level(const struct pdroute_request *r)
{
	return (enum pdroute_level)r->key.level;
}

const char *pdroute_request_key(const struct pdroute_request *r, size_t *size)
{
	if (size)
		*size = r->key.len;
	return r->key.text;
}

const char *pdroute_request_key_source(const struct pdroute_request *r)
{
	return r->key.source;
}

void pdroute_request_set_dice(struct pdroute_request *r, uint64_t seed, uint64_t number,
			      uint32_t attempt)
{
	r->seed = seed;
	r->number = number;
	r->attempt = attempt;
}

void pdroute_request_set_time(struct pdroute_request *r, int64_t now_ns)
{
	r->now_ns = now_ns;
}

void pdroute_request_set_tokens(struct pdroute_request *r, uint32_t prompt_tokens)
{
	r->tokens = prompt_tokens;
}

/* A copy of n items in place of *to; none of them: NULL. */
static int replace(void **to, const void *from, size_t n, size_t item)
{
	void *copy = NULL;

	if (!from && n > 0)
		return PD_EINVAL;
	if (n > 0) {
		copy = calloc(n, item);
		if (!copy)
			return PD_ENOMEM;
		memcpy(copy, from, n * item);
	}
	free(*to);
	*to = copy;
	return PD_OK;
}

int pdroute_request_set_model(struct pdroute_request *r, const char *model, size_t size)
{
	void *copy = r ? r->model : NULL;
	int err = r ? replace(&copy, model, size, 1) : PD_EINVAL;

	if (err)
		return err;
	r->model = copy;
	r->model_size = size;
	return PD_OK;
}

int pdroute_request_set_blocks(struct pdroute_request *r, const uint64_t *block, size_t n)
{
	void *copy = r ? r->block : NULL;
	int err = r ? replace(&copy, block, n, sizeof(*block)) : PD_EINVAL;

	if (err)
		return err;
	r->block = copy;
	r->nblocks = n;
	return PD_OK;
}

int pdroute_request_set_input(struct pdroute_request *r, const struct pdroute_field *fields,
			      size_t nfields, const char *body, size_t size)
{
	struct field *list;

	if (!r || (!fields && nfields > 0) || (!body && size > 0))
		return PD_EINVAL;
	list = list_of(fields, nfields);
	if (!list)
		return PD_ENOMEM;
	free(r->field);
	r->field = list;
	r->nfields = nfields;
	r->body = (struct span){body, size};
	return PD_OK;
}

int pdroute_request_find_blocks(struct pdroute_request *r, const struct pdroute_body *body)
{
	struct span prompt;
	uint64_t *block;
	size_t max;

	if (!r || !body)
		return PD_EINVAL;
	prompt = route_prompt(&body->object);
	max = prompt.n / ROUTE_BLOCK_BYTES;
	max = max < ROUTE_BLOCKS_MAX ? max : ROUTE_BLOCKS_MAX;
	block = calloc(max + 1, sizeof(*block));
	if (!block)
		return PD_ENOMEM;
	free(r->block);
	r->block = block;
	r->nblocks = route_blocks(0, prompt.p, prompt.n, ROUTE_BLOCK_BYTES, block, max);
	r->tokens = (uint32_t)(prompt.n / ROUTE_TOKEN_BYTES);
	return PD_OK;
}

size_t pdroute_blocks(uint64_t parent, const void *p, size_t size, size_t block, uint64_t *out,
		      size_t max)
{
	return p && out && block > 0 ? route_blocks(parent, p, size, block, out, max) : 0;
}

int pdroute_request_add_tried(struct pdroute_request *r, const struct pdroute_worker *w)
{
	const struct pdroute_worker **more;

	if (!r || !w)
		return PD_EINVAL;
	for (size_t i = 0; i < r->ntried; i++)
		if (r->tried[i] == w)
			return PD_OK;
	more = realloc(r->tried, (r->ntried + 1) * sizeof(struct pdroute_worker *));
	if (!more)
		return PD_ENOMEM;
	r->tried = more;
	r->tried[r->ntried++] = w;
	return PD_OK;
}
