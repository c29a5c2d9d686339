/* The schema is a table; ranges are checked behind it, where the message can name the place. */
#include "sim/engine/profile.h"

#include <stdio.h>
#include <string.h>

#include "lib/base/file.h"
#include "lib/base/yamlload.h"
#include "sim/engine/hardware.h"

#define FILE_MAX ((size_t)1 << 20)

struct y_cost {
	double *a, *b, *c, *d, *e;
};

struct y_fit {
	char *source;
	uint64_t *fitted, *tested;
	double *condition, *band_percent;
};

struct y_profile {
	char *profile, *model, *gpu, *engine;
	struct y_cost *step_us;
	uint64_t *max_num_seqs, *max_num_batched_tokens, *block_size, *num_blocks, *tensor_parallel,
		*data_parallel;
	bool *expert_parallel;
	struct y_fit *fit;
};

#define OPT	   (CYAML_FLAG_OPTIONAL | CYAML_FLAG_POINTER)
#define TEXT(S, M) CYAML_FIELD_STRING_PTR(#M, OPT, struct S, M, 1, PROFILE_TEXT_MAX - 1)
#define UINT(M)	   CYAML_FIELD_UINT_PTR(#M, OPT, struct y_profile, M)
#define REAL(S, M) CYAML_FIELD_FLOAT_PTR(#M, OPT, struct S, M)

static const cyaml_schema_field_t cost_fields[] = {REAL(y_cost, a), REAL(y_cost, b),
						   REAL(y_cost, c), REAL(y_cost, d),
						   REAL(y_cost, e), CYAML_FIELD_END};

static const cyaml_schema_field_t fit_fields[] = {
	TEXT(y_fit, source),
	CYAML_FIELD_UINT_PTR("fitted_requests", OPT, struct y_fit, fitted),
	CYAML_FIELD_UINT_PTR("tested_requests", OPT, struct y_fit, tested),
	REAL(y_fit, condition),
	REAL(y_fit, band_percent),
	CYAML_FIELD_END};

static const cyaml_schema_field_t fields[] = {
	CYAML_FIELD_STRING_PTR("profile", CYAML_FLAG_POINTER, struct y_profile, profile, 1,
			       PROFILE_TEXT_MAX - 1),
	TEXT(y_profile, model),
	TEXT(y_profile, gpu),
	TEXT(y_profile, engine),
	CYAML_FIELD_MAPPING_PTR("step_us", CYAML_FLAG_POINTER, struct y_profile, step_us,
				cost_fields),
	UINT(max_num_seqs),
	UINT(max_num_batched_tokens),
	UINT(block_size),
	UINT(num_blocks),
	UINT(tensor_parallel),
	UINT(data_parallel),
	CYAML_FIELD_BOOL_PTR("expert_parallel", OPT, struct y_profile, expert_parallel),
	CYAML_FIELD_MAPPING_PTR("fit", OPT, struct y_profile, fit, fit_fields),
	CYAML_FIELD_END};

static const cyaml_schema_value_t top = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct y_profile, fields)};

static int out_of_range(const struct yamlpos *pos, const char *path, const char *file, double found,
			double min, double max, struct pd_msg *msg)
{
	const struct yamlpos_entry *e = yamlpos_find(pos, path);

	return pd_fail(msg, PD_EINVAL, "%s:%zu:%zu: '%s': found %g, expected %g to %g", file,
		       e ? e->value_line : 1, e ? e->value_column : 1, path, found, min, max);
}

static int convert(const struct y_profile *y, const struct yamlpos *pos, const char *file,
		   struct profile *p, struct pd_msg *msg)
{
	const struct {
		const char *path;
		const double *from;
		double *to, min, max;
	} reals[] = {{"step_us.a", y->step_us->a, &p->cost.a, 0, 1e9},
		     {"step_us.b", y->step_us->b, &p->cost.b, 0, 1e6},
		     {"step_us.c", y->step_us->c, &p->cost.c, 0, 1e6},
		     {"step_us.d", y->step_us->d, &p->cost.d, 0, 1e6},
		     {"step_us.e", y->step_us->e, &p->cost.e, 0, 1e6},
		     {"fit.condition", y->fit ? y->fit->condition : NULL, &p->condition, 0, 1e300},
		     {"fit.band_percent", y->fit ? y->fit->band_percent : NULL, &p->band_percent, 0,
		      1e6}};
	const struct {
		const char *path;
		const uint64_t *from;
		uint32_t *to;
		uint64_t min, max;
	} counts[] = {
		{"max_num_seqs", y->max_num_seqs, &p->max_num_seqs, 1, SCHED_SEATS_MAX},
		{"max_num_batched_tokens", y->max_num_batched_tokens, &p->max_num_batched_tokens, 1,
		 SCHED_BUDGET_MAX},
		{"block_size", y->block_size, &p->block_size, 1, 1 << 20},
		{"num_blocks", y->num_blocks, &p->num_blocks, 2, KVPOOL_BLOCKS_MAX},
		{"tensor_parallel", y->tensor_parallel, &p->tensor_parallel, 1, 1024},
		{"data_parallel", y->data_parallel, &p->data_parallel, 1, SCHED_RANKS_MAX},
		{"fit.fitted_requests", y->fit ? y->fit->fitted : NULL, &p->fitted, 0, UINT32_MAX},
		{"fit.tested_requests", y->fit ? y->fit->tested : NULL, &p->tested, 0, UINT32_MAX}};
	const struct {
		const char *from;
		char *to;
	} texts[] = {{y->profile, p->name},
		     {y->model, p->model},
		     {y->gpu, p->gpu},
		     {y->engine, p->engine},
		     {y->fit ? y->fit->source : NULL, p->source}};

	for (size_t i = 0; i < sizeof(reals) / sizeof(reals[0]); i++) {
		if (!reals[i].from)
			continue;
		if (!(*reals[i].from >= reals[i].min && *reals[i].from <= reals[i].max))
			return out_of_range(pos, reals[i].path, file, *reals[i].from, reals[i].min,
					    reals[i].max, msg);
		*reals[i].to = *reals[i].from;
	}
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		if (!counts[i].from)
			continue;
		if (*counts[i].from < counts[i].min || *counts[i].from > counts[i].max)
			return out_of_range(pos, counts[i].path, file, (double)*counts[i].from,
					    (double)counts[i].min, (double)counts[i].max, msg);
		*counts[i].to = (uint32_t)*counts[i].from;
	}
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (texts[i].from)
			(void)snprintf(texts[i].to, PROFILE_TEXT_MAX, "%s", texts[i].from);
	p->expert_parallel = y->expert_parallel && *y->expert_parallel;
	if (p->cost.a < 1)
		return out_of_range(pos, "step_us.a", file, p->cost.a, 1, 1e9, msg);
	return PD_OK;
}

int profile_load(struct profile *p, const char *path, struct pd_msg *warning, struct pd_msg *msg)
{
	struct yamlpos pos;
	struct buf text;
	void *data;
	int err;

	*p = PROFILE_DEFAULTS;
	warning->text[0] = '\0';
	buf_init(&text, FILE_MAX);
	err = file_read(path, &text, msg);
	if (!err)
		err = yamlload_read(&top, &data, &pos, text.data ? text.data : "", text.len, path,
				    msg);
	if (!err) {
		err = convert(data, &pos, path, p, msg);
		yamlload_free(&top, data);
		yamlpos_release(&pos);
	}
	buf_release(&text);
	if (!err)
		profile_floors(p, warning);
	return err;
}

/* Quoted as YAML's single-quoted text. */
static int put_text(struct buf *out, const char *key, const char *text)
{
	int err = text[0] ? buf_printf(out, "%s: '", key) : PD_OK;

	for (; text[0] && !err && *text; text++)
		err = *text == '\'' ? buf_puts(out, "''") : buf_putc(out, *text);
	return err;
}

static int put_line(struct buf *out, const char *key, const char *text)
{
	int err = put_text(out, key, text);

	return err || !text[0] ? err : buf_puts(out, "'\n");
}

static int put_count(struct buf *out, const char *key, uint32_t value)
{
	return value ? buf_printf(out, "%s: %u\n", key, value) : PD_OK;
}

int profile_write(const struct profile *p, struct buf *out)
{
	int err = put_line(out, "profile", p->name);

	err = err ? err : put_line(out, "model", p->model);
	err = err ? err : put_line(out, "gpu", p->gpu);
	err = err ? err : put_line(out, "engine", p->engine);
	err = err ? err
		  : buf_printf(out,
			       "step_us: # a + b * prompt tokens + c * decodes + d * context of "
			       "decodes + e * attention of prompts\n"
			       "  a: %.9g\n  b: %.9g\n  c: %.9g\n  d: %.9g\n  e: %.9g\n",
			       p->cost.a, p->cost.b, p->cost.c, p->cost.d, p->cost.e);
	err = err ? err : put_count(out, "max_num_seqs", p->max_num_seqs);
	err = err ? err : put_count(out, "max_num_batched_tokens", p->max_num_batched_tokens);
	err = err ? err : put_count(out, "block_size", p->block_size);
	err = err ? err : put_count(out, "num_blocks", p->num_blocks);
	err = err ? err : put_count(out, "tensor_parallel", p->tensor_parallel);
	err = err ? err : put_count(out, "data_parallel", p->data_parallel);
	if (!err && p->expert_parallel)
		err = buf_puts(out, "expert_parallel: true\n");
	if (!err && p->band_percent >= 0) {
		err = buf_puts(out, "fit:\n");
		err = err ? err : put_line(out, "  source", p->source);
		err = err ? err
			  : buf_printf(out,
				       "  fitted_requests: %u\n  tested_requests: %u\n"
				       "  condition: %.3g\n  band_percent: %.3g\n",
				       p->fitted, p->tested, p->condition, p->band_percent);
	}
	return err;
}

void profile_apply(const struct profile *p, struct engine_params *e)
{
	e->step_ms = p->cost.a / 1e3;
	e->prefill_us = p->cost.b;
	e->request_us = p->cost.c;
	e->context_us = p->cost.d;
	e->attention_us = p->cost.e;
	(void)snprintf(e->profile, sizeof(e->profile), "%.60s", p->name);
	e->band_percent = p->band_percent;
	if (p->max_num_seqs)
		e->max_num_seqs = p->max_num_seqs;
	if (p->max_num_batched_tokens)
		e->max_batched_tokens = p->max_num_batched_tokens;
	if (p->num_blocks)
		e->kv_tokens = (uint64_t)(p->num_blocks - 1) * (p->block_size ? p->block_size : 16);
}

void profile_floors(const struct profile *p, struct pd_msg *warning)
{
	struct hardware_setup h = {.gpu = hardware_gpu_find(p->gpu),
				   .model = hardware_model_find(p->model),
				   .tensor = p->tensor_parallel,
				   .data = p->data_parallel,
				   .expert = p->expert_parallel,
				   .weight_bytes = 2};
	struct stepcost f;
	size_t n;

	if (!h.gpu || !h.model)
		return;
	f = hardware_floor(&h);
	const struct {
		char name;
		double is, floor;
	} term[] = {{'a', p->cost.a, f.a},
		    {'b', p->cost.b, f.b},
		    {'d', p->cost.d, f.d},
		    {'e', p->cost.e, f.e}};

	for (size_t i = 0; i < sizeof(term) / sizeof(term[0]); i++) {
		n = strlen(warning->text);
		if (term[i].is < term[i].floor * 0.999 && n + 80 < sizeof(warning->text))
			(void)snprintf(warning->text + n, sizeof(warning->text) - n,
				       "%s'%c' is %.4g us, below the %.4g us that %s can reach",
				       n ? "; " : "", term[i].name, term[i].is, term[i].floor,
				       h.gpu->name);
	}
}
