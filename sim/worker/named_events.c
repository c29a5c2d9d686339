/* A message has one block of text; a response has one item of output with one part. */
#include "sim/worker/named_events.h"

#include <inttypes.h>
#include <string.h>

/* -- /v1/messages -- */

static void put_usage(struct jout *o, const struct event_flow *f)
{
	jout_put(o, ",");
	answer_usage(o, f->g, f->prompt, f->completion, f->cached);
}

static void message_begin(struct jout *o, struct event_flow *f)
{
	jout_put(o, "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{");
	answer_head(o, f->g, false, f->created);
	jout_put(o, ",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null");
	put_usage(o, f);
	jout_put(o, "}}\n\nevent: content_block_start\ndata: {\"index\":0,\"type\":"
		    "\"content_block_start\",\"content_block\":{\"type\":\"text\",\"text\":\"\"}}"
		    "\n\n");
}

static void message_text(struct jout *o, struct span text)
{
	jout_put(o,
		 "event: content_block_delta\ndata: {\"index\":0,\"type\":\"content_block_delta\","
		 "\"delta\":{\"type\":\"text_delta\",\"text\":\"");
	jout_raw(o, text.p, text.n);
	jout_put(o, "\"}}\n\n");
}

static void message_end(struct jout *o, const struct event_flow *f, const char *finish)
{
	jout_put(o, "event: content_block_stop\ndata: {\"index\":0,\"type\":\"content_block_stop\"}"
		    "\n\n");
	jout_fmt(o,
		 "event: message_delta\ndata: "
		 "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":"
		 "\"%s\"}",
		 strcmp(finish, "length") == 0 ? "max_tokens" : "end_turn");
	put_usage(o, f);
	jout_put(o, "}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
}

/* -- /v1/responses -- */

/* event: NAME, data: {"type":NAME,"sequence_number":N */
static void open_event(struct jout *o, struct event_flow *f, const char *name)
{
	jout_fmt(o, "event: response.%s\ndata: {\"type\":\"response.%s\",\"sequence_number\":%lu",
		 name, name, f->number++);
}

static void put_part(struct jout *o, struct span text)
{
	jout_put(o, "{\"type\":\"output_text\",\"annotations\":[],\"logprobs\":[],\"text\":\"");
	jout_raw(o, text.p, text.n);
	jout_put(o, "\"}");
}

/* The whole response as far as it is: without a finish it runs. */
static void put_response(struct jout *o, const struct event_flow *f, struct span text,
			 const char *finish)
{
	struct answer_part part = {.text = text};

	jout_put(o, ",\"response\":{");
	answer_head(o, f->g, false, f->created);
	answer_list(o, f->g);
	if (finish) {
		answer_choice(o, f->g, 0, &part);
		answer_tail(o, f->g, finish);
		put_usage(o, f);
		jout_put(o, "}");
	} else {
		jout_put(o, "],\"status\":\"in_progress\",\"usage\":null}");
	}
}

static void put_item(struct jout *o, const struct event_flow *f, struct span text, bool done)
{
	struct answer_part part = {.text = text};

	jout_put(o, ",\"output_index\":0,\"item\":");
	if (done)
		answer_choice(o, f->g, 0, &part);
	else
		jout_fmt(o,
			 "{\"id\":\"msg_%s\",\"type\":\"message\",\"role\":\"assistant\","
			 "\"status\":\"in_progress\",\"content\":[]}",
			 f->g->id + 5);
}

/* Which part of which item an event is about. */
static void put_place(struct jout *o, const struct event_flow *f)
{
	jout_fmt(o, ",\"item_id\":\"msg_%s\",\"output_index\":0,\"content_index\":0", f->g->id + 5);
}

static void response_begin(struct jout *o, struct event_flow *f)
{
	open_event(o, f, "created");
	put_response(o, f, SPAN(""), NULL);
	jout_put(o, "}\n\n");
	open_event(o, f, "in_progress");
	put_response(o, f, SPAN(""), NULL);
	jout_put(o, "}\n\n");
	open_event(o, f, "output_item.added");
	put_item(o, f, SPAN(""), false);
	jout_put(o, "}\n\n");
	open_event(o, f, "content_part.added");
	put_place(o, f);
	jout_put(o, ",\"part\":");
	put_part(o, SPAN(""));
	jout_put(o, "}\n\n");
}

static void response_text(struct jout *o, struct event_flow *f, struct span text)
{
	open_event(o, f, "output_text.delta");
	put_place(o, f);
	jout_put(o, ",\"logprobs\":[],\"delta\":\"");
	jout_raw(o, text.p, text.n);
	jout_put(o, "\"}\n\n");
}

static void response_end(struct jout *o, struct event_flow *f, struct span text, const char *finish)
{
	open_event(o, f, "output_text.done");
	put_place(o, f);
	jout_put(o, ",\"logprobs\":[],\"text\":\"");
	jout_raw(o, text.p, text.n);
	jout_put(o, "\"}\n\n");
	open_event(o, f, "content_part.done");
	put_place(o, f);
	jout_put(o, ",\"part\":");
	put_part(o, text);
	jout_put(o, "}\n\n");
	open_event(o, f, "output_item.done");
	put_item(o, f, text, true);
	jout_put(o, "}\n\n");
	open_event(o, f, "completed");
	put_response(o, f, text, finish);
	jout_put(o, "}\n\n");
}

/* -- either -- */

void events_begin(struct jout *o, struct event_flow *f)
{
	if (f->g->kind == GEN_MESSAGES)
		message_begin(o, f);
	else
		response_begin(o, f);
}

void events_text(struct jout *o, struct event_flow *f, struct span text)
{
	if (f->g->kind == GEN_MESSAGES)
		message_text(o, text);
	else
		response_text(o, f, text);
}

void events_end(struct jout *o, struct event_flow *f, struct span text, const char *finish)
{
	if (f->g->kind == GEN_MESSAGES)
		message_end(o, f, finish);
	else
		response_end(o, f, text, finish);
}
