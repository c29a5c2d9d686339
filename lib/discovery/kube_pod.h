/*
 * Pods as the Kubernetes API tells of them: which are wanted (selectors), which take requests, and
 * what worker each one is. No I/O. Source: the API reference of Kubernetes 1.34 (core/v1 Pod, List
 * and watch events of meta/v1), and vllm-router 0.1.17 for what makes a pod a worker.
 *
 * A pod takes requests when its phase is Running, its condition Ready is True, it has an IP, it is
 * not being deleted, and a selector matches its labels.
 */
#ifndef PD_DISCOVERY_KUBE_POD_H
#define PD_DISCOVERY_KUBE_POD_H

#include "lib/base/buf.h"
#include "lib/discovery/discovery.h"

#define KUBE_NAME_MAX	   253 /* bytes of a pod's name; a namespace has 63 at most */
#define KUBE_KEY_MAX	   336 /* "namespace/name" */
#define KUBE_VERSION_MAX   128 /* bytes of a resourceVersion, which is any text */
#define KUBE_SELECTORS_MAX 32  /* labels of a selector */

/* Annotations that name the port of a prefill worker's bootstrap server; the first one counts. */
#define KUBE_BOOTSTRAP	      "vllm.ai/bootstrap-port"
#define KUBE_BOOTSTRAP_SGLANG "sglang.ai/bootstrap-port"
/* The label that every worker has beside those of its pod: the node, so that pairs can share it. */
#define KUBE_LABEL_NODE "kubernetes.io/hostname"

/* Labels that all must have these values. */
struct kube_selector {
	struct {
		struct span name, value; /* borrowed */
	} pair[KUBE_SELECTORS_MAX];
	size_t n;
};

/* Adds "NAME=VALUE[,NAME=VALUE...]". PD_EINVAL with what was found and expected. */
int kube_selector_add(struct kube_selector *s, const char *text, struct pd_msg *msg) PD_MUST;

/* What is looked for. */
struct kube_wanted {
	bool pd;
	struct kube_selector all;     /* of each worker; may be empty in prefill/decode mode */
	struct kube_selector role[3]; /* [DISCOVERY_PREFILL], [DISCOVERY_DECODE] with pd */
	uint16_t port[3];	      /* by role */
	bool plain_names;	      /* one namespace: a worker is called as its pod; else
					 "namespace/pod" */
	bool url_names;		      /* it is called as its URL, as vllm-router does */
};

/* Appends the labelSelector that every wanted pod passes, not escaped; nothing when there is none.
 */
int kube_wanted_selector(const struct kube_wanted *w, struct buf *out) PD_MUST;

/* Why a pod takes no requests. */
enum kube_why {
	KUBE_TAKES, /* it does */
	KUBE_OTHER, /* no selector matches */
	KUBE_GOING, /* it is being deleted */
	KUBE_PHASE, /* not Running */
	KUBE_NOT_READY,
	KUBE_NO_IP,
	KUBE_GONE /* it was deleted */
};
const char *kube_why_text(enum kube_why w); /* "is not ready"; constant */

struct kube_pod {
	char key[KUBE_KEY_MAX + 1]; /* "namespace/name" */
	char uid[64];		    /* "": none, or a longer one */
	enum kube_why why;
	bool bad_port;		   /* its bootstrap annotation is no port, and is not used */
	struct discovery_worker w; /* with KUBE_TAKES; its labels are owned */
};
void kube_pod_release(struct kube_pod *p);

/* The pages of a list: calls `each` for every pod, which takes what the pod owns over (moves it out
 * and zeroes) or leaves it. An error of `each` ends it. version: of the list; more: where the next
 * page begins, empty: there is none. PD_EINVAL with a sentence: it is no PodList. */
struct kube_page {
	char version[KUBE_VERSION_MAX + 1];
	struct buf *more; /* of the caller; replaced */
	int (*each)(void *ctx, struct kube_pod *p);
	void *ctx;
};
int kube_page_read(struct kube_page *page, struct span body, const struct kube_wanted *w,
		   struct pd_msg *msg) PD_MUST;

enum kube_event_kind {
	KUBE_PUT,      /* ADDED and MODIFIED: pod */
	KUBE_DELETE,   /* DELETED: pod, with KUBE_GONE */
	KUBE_BOOKMARK, /* a version only */
	KUBE_ERROR     /* status and reason: what the server says against the watch */
};
struct kube_event {
	enum kube_event_kind kind;
	char version[KUBE_VERSION_MAX + 1]; /* all but KUBE_ERROR */
	struct kube_pod pod;		    /* PUT and DELETE; kube_event_release */
	int status;			    /* 410: the version is too old */
	char reason[300];
};
/* One line of a watch, without its end. PD_EINVAL with a sentence: it is no event. PD_ENOMEM. */
int kube_event_read(struct kube_event *e, struct span line, const struct kube_wanted *w,
		    struct pd_msg *msg) PD_MUST;
void kube_event_release(struct kube_event *e);

/* What a Status answer says; empty when it is none. `wait_s`: when to come again, 0: it does not
 * say. */
void kube_status_read(struct span body, char *text, size_t cap, int *code, unsigned *wait_s);

#endif
