/*
 * Answers in the shape of vLLM's API server: an error as an object, JSON with its status. Functions
 * that check a request fill a struct api_error and return an error code.
 */
#ifndef PD_SIM_WORKER_API_H
#define PD_SIM_WORKER_API_H

#include "lib/http/server.h"
#include "sim/worker/jout.h"

/* Whose errors they are: {"error":{...}}, or Anthropic's {"type":"error","error":{...}}. */
enum api_form { API_OPENAI, API_ANTHROPIC };

/* status 0: no error. */
struct api_error {
	enum api_form form;
	int status;
	const char *type;
	const char *param; /* NULL: null */
	char text[400];
};

/* Returns PD_ENOENT for 404, else PD_EINVAL. */
int api_fail(struct api_error *e, int status, const char *param, const char *fmt, ...)
	PD_PRINTF(4, 5);
/* Refuses anything but application/json, as vLLM does. */
int api_check_json(const struct http_request *r, struct api_error *e) PD_MUST;
/* extra: header lines, or NULL. */
void api_reply_error(struct http_conn *c, const struct api_error *e, const char *extra);
/* Sends what o holds as JSON, or 500 when building it failed. */
void api_reply(struct http_conn *c, struct jout *o);

#endif
