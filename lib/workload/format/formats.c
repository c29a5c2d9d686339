/* The table of formats. The first row whose marks fit is taken, so the more special ones stand
 * before the more general ones. */
#include "lib/workload/format/formats.h"

#include <string.h>

const struct workload_format *const workload_formats[] = {
	&format_capture,
	&format_gen,
	&format_tracev2,
	&format_tracev2_rows,
	&format_openai_batch,
	&format_anthropic_batch,
	&format_aiperf_inputs,
	&format_weka,
	&format_sharegpt,
	&format_servingsim_sessions,
	&format_servingsim_measured,
	&format_servingsim,
	&format_aiperf_multi,
	&format_bailian,
	&format_lmcache,
	&format_pdctl,
	&format_infinilm,
	&format_mooncake,
	&format_conversations,
	&format_openai,
	&format_custom,
	&format_aiperf_single,
	&format_columns,
	&format_azure,
	&format_burstgpt,
	&format_vidur,
	&format_prompts_csv,
	&format_text,
	NULL,
};

const struct workload_format *workload_format_find(const char *name)
{
	for (size_t i = 0; workload_formats[i]; i++)
		if (strcmp(workload_formats[i]->name, name) == 0)
			return workload_formats[i];
	return NULL;
}

int workload_format_names(struct buf *out)
{
	int err = PD_OK;

	for (size_t i = 0; !err && workload_formats[i]; i++)
		err = buf_printf(out, "%s%s", i ? ", " : "", workload_formats[i]->name);
	return err;
}

int workload_format_markdown(struct buf *out)
{
	int err = buf_puts(out, "| format | holds | recognised by | times | described in |\n"
				"|---|---|---|---|---|\n");

	for (size_t i = 0; !err && workload_formats[i]; i++) {
		const struct workload_format *f = workload_formats[i];

		err = buf_printf(out, "| `%s` | %s | %s | %s | %s |\n", f->name, f->title, f->marks,
				 f->times ? f->times : "none", f->origin);
	}
	return err;
}
