/* The rows of the table in formats.c, one file each. */
#ifndef PD_WORKLOAD_FORMAT_FORMATS_H
#define PD_WORKLOAD_FORMAT_FORMATS_H

#include "lib/workload/format.h"

extern const struct workload_format format_capture, format_gen, format_tracev2, format_tracev2_rows,
	format_openai_batch, format_anthropic_batch, format_aiperf_inputs, format_weka,
	format_sharegpt, format_servingsim_sessions, format_servingsim_measured, format_servingsim,
	format_aiperf_multi, format_bailian, format_lmcache, format_pdctl, format_infinilm,
	format_mooncake, format_conversations, format_openai, format_custom, format_aiperf_single,
	format_columns, format_azure, format_burstgpt, format_vidur, format_prompts_csv,
	format_text;

#endif
