#include "lib/discovery/registry_table.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/discovery/registry.h"

void registry_service_free(struct registry_service *s)
{
	if (!s)
		return;
	free(s->name);
	free(s->host);
	free(s->hostname);
	free(s->url);
	free(s->metadata);
	free(s);
}

/* The member's text, else the old one's, as a copy in *out. */
static int text(char **out, const cJSON *o, const char *name, const char *old, struct pd_msg *msg)
{
	const cJSON *m = cJSON_GetObjectItemCaseSensitive(o, name);
	const char *found = cJSON_GetStringValue(m);

	if (m ? !found || !*found || strlen(found) > REGISTRY_NAME_MAX : !old)
		return pd_fail(msg, PD_EINVAL, "\"%s\": found %s, expected a text of 1 to %d bytes",
			       name,
			       !m      ? "none"
			       : found ? "an empty or longer one"
				       : "another type",
			       REGISTRY_NAME_MAX);
	*out = strdup(m ? found : old);
	return *out ? PD_OK : pd_fail(msg, PD_ENOMEM, "out of memory");
}

static int port(struct registry_service *s, const cJSON *o, const struct registry_service *old,
		struct pd_msg *msg)
{
	const cJSON *m = cJSON_GetObjectItemCaseSensitive(o, "port");

	if (m ? !cJSON_IsNumber(m) || m->valuedouble < 1 || m->valuedouble > 65535 ||
			    m->valuedouble != (double)(int)m->valuedouble
	      : !old)
		return pd_fail(msg, PD_EINVAL,
			       "\"port\": found %s, expected a number from 1 to 65535",
			       m ? "something else" : "none");
	s->port = m ? (uint16_t)m->valuedouble : old->port;
	return PD_OK;
}

static int metadata(struct registry_service *s, const cJSON *o, const struct registry_service *old,
		    struct pd_msg *msg)
{
	const cJSON *m = cJSON_GetObjectItemCaseSensitive(o, "metadata");

	if (m && !cJSON_IsObject(m) && !cJSON_IsNull(m))
		return pd_fail(msg, PD_EINVAL, "\"metadata\": found no object, expected one");
	s->metadata = cJSON_IsObject(m) ? cJSON_PrintUnformatted(m)
					: strdup(old && old->metadata ? old->metadata : "{}");
	return s->metadata ? PD_OK : pd_fail(msg, PD_ENOMEM, "out of memory");
}

int registry_service_read(struct registry_service **out, struct span body,
			  const struct registry_service *old, struct pd_msg *msg)
{
	struct registry_service *s = calloc(1, sizeof(*s));
	cJSON *o = cJSON_ParseWithLength(body.p, body.n);
	char *status = NULL;
	int err = PD_OK;

	if (!s)
		err = pd_fail(msg, PD_ENOMEM, "out of memory");
	else if (!cJSON_IsObject(o))
		err = pd_fail(msg, PD_EINVAL, "the body: found no JSON object, expected one");
	if (!err)
		err = text(&s->name, old ? NULL : o, "name", old ? old->name : NULL, msg);
	if (!err)
		err = text(&s->host, o, "host", old ? old->host : NULL, msg);
	if (!err)
		err = port(s, o, old, msg);
	if (!err)
		err = text(&s->hostname, o, "hostname", old ? old->hostname : NULL, msg);
	if (!err)
		err = text(&s->url, o, "url", old ? old->url : NULL, msg);
	if (!err)
		err = text(&status, o, "status", old ? old->status : NULL, msg);
	if (!err)
		err = metadata(s, o, old, msg);
	if (!err) {
		(void)snprintf(s->status, sizeof(s->status), "%s", status);
		s->registered = old ? old->registered : 0;
		s->health = old ? old->health : REGISTRY_UNKNOWN;
		*out = s;
	} else {
		registry_service_free(s);
	}
	free(status);
	cJSON_Delete(o);
	return err;
}
