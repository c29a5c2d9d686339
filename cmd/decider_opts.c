#include "cmd/decider_opts.h"

#define TOKENS_MAX 100000000

void decider_opts_init(struct decider_opts *o)
{
	const struct route_decider_spec d = ROUTE_DECIDER_DEFAULTS;

	*o = (struct decider_opts){.kind = "always",
				   .non_cached_tokens = d.non_cached_tokens,
				   .prompt_tokens = d.prompt_tokens,
				   .max_local_prefill = d.max_local_prefill,
				   .prefill_busy = d.prefill_busy,
				   .decode_busy = d.decode_busy};
	o->rows[0] =
		(struct opt){OPT_CHOICE,
			     "pd-decider",
			     &o->kind,
			     NULL,
			     "P/D: which requests are prefilled by a prefill worker; the others "
			     "by their decode worker (always)",
			     "always|never|prefix|cost",
			     0,
			     0,
			     NULL};
	o->rows[1] =
		(struct opt){OPT_INT,
			     "pd-non-cached-tokens",
			     &o->non_cached_tokens,
			     "N",
			     "prefix: with at least so many tokens that the decode worker does "
			     "not have; 0: never (512)",
			     NULL,
			     0,
			     TOKENS_MAX,
			     NULL};
	o->rows[2] = (struct opt){OPT_INT,
				  "pd-prompt-tokens",
				  &o->prompt_tokens,
				  "N",
				  "prefix: and a prompt of at least so many tokens (0)",
				  NULL,
				  0,
				  TOKENS_MAX,
				  NULL};
	o->rows[3] = (struct opt){OPT_INT,
				  "pd-max-local-prefill",
				  &o->max_local_prefill,
				  "N",
				  "cost: the decode worker computes up to so many tokens itself "
				  "(1000)",
				  NULL,
				  0,
				  TOKENS_MAX,
				  NULL};
	o->rows[4] =
		(struct opt){OPT_REAL,
			     "pd-prefill-busy",
			     &o->prefill_busy,
			     "N",
			     "cost: and any number while prefill workers have more requests in "
			     "flight each; 0: no limit (2)",
			     NULL,
			     0,
			     1000000,
			     NULL};
	o->rows[5] =
		(struct opt){OPT_REAL,
			     "pd-decode-busy",
			     &o->decode_busy,
			     "N",
			     "cost: and none while it has more requests in flight; 0: no limit "
			     "(0)",
			     NULL,
			     0,
			     1000000,
			     NULL};
	o->rows[6] = (struct opt){.type = OPT_END};
}

void decider_opts_spec(const struct decider_opts *o, struct route_decider_spec *out)
{
	*out = (struct route_decider_spec){.non_cached_tokens = o->non_cached_tokens,
					   .prompt_tokens = o->prompt_tokens,
					   .max_local_prefill = o->max_local_prefill,
					   .prefill_busy = o->prefill_busy,
					   .decode_busy = o->decode_busy};
	if (route_decider_find(&out->kind, o->kind))
		out->kind = ROUTE_DECIDER_always;
}
