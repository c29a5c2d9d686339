/* The profile is written first: when that fails nothing was printed. */
#include "cmd/simulate_calibrate.h"

#include <stdlib.h>
#include <string.h>

#include "cmd/json_out.h"
#include "lib/base/cli.h"
#include "lib/base/file.h"
#include "sim/engine/hardware.h"
#include "sim/fit/calreport.h"

#define OUT_MAX ((size_t)1 << 26)

static int write_json(const struct calibration *c, const char *path, struct pd_msg *msg)
{
	cJSON *doc = calibrate_json(c);
	int err = json_out(path, doc, msg);

	cJSON_Delete(doc);
	return err;
}

static int write_profile(const struct calibration *c, const char *path, struct pd_msg *msg)
{
	struct buf out;
	int err;

	buf_init(&out, OUT_MAX);
	err = profile_write(&c->profile, &out);
	err = err ? pd_fail(msg, err, "out of memory") : file_write(path, out.data, out.len, msg);
	buf_release(&out);
	return err;
}

static int print_text(const struct calibration *c, struct pd_msg *msg)
{
	struct buf out;
	int err;

	buf_init(&out, OUT_MAX);
	err = calibrate_text(c, &out);
	if (!err)
		cli_print(out.data, out.len);
	buf_release(&out);
	return err ? pd_fail(msg, err, "out of memory") : PD_OK;
}

int simulate_calibrate_run(const struct simulate_calibrate *o, struct pd_msg *msg)
{
	struct pd_msg warning;
	struct profile given;
	struct calibration c;
	bool fixed = o->profile || o->prior;
	int err = PD_OK;

	if (fixed && (o->fit_first || o->profile_out) && !(o->prior && !o->fit_first))
		return pd_fail(msg, PD_EINVAL,
			       "--profile with --calibrate tests that profile: expected neither "
			       "--fit-first nor --profile-out");
	if (o->profile)
		err = profile_load(&given, o->profile, &warning, msg);
	else if (o->prior)
		err = calibrate_prior(o->file, &given, msg);
	if (!err)
		err = calibrate_run(&c, o->file, (size_t)o->fit_first, fixed ? &given : NULL, msg);
	if (err)
		return err;
	if (o->prior && c.profile.band_percent < HARDWARE_PRIOR_BAND)
		c.profile.band_percent = HARDWARE_PRIOR_BAND;
	if (o->profile_out)
		err = write_profile(&c, o->profile_out, msg);
	if (!err && o->json)
		err = write_json(&c, o->json, msg);
	if (!err && !(o->json && strcmp(o->json, "-") == 0))
		err = print_text(&c, msg);
	calibrate_release(&c);
	return err;
}
