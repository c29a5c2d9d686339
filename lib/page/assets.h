/*
 * What browsers get, embedded at build time: the pages, their style and scripts, and the chart
 * library d3 out of the Debian package libjs-d3. The texts live as long as the program.
 */
#ifndef PD_PAGE_ASSETS_H
#define PD_PAGE_ASSETS_H

#include "lib/base/span.h"

enum page_asset {
	ASSET_D3_NOTICE, /* a comment of JavaScript with its licence; stands before ASSET_D3 */
	ASSET_D3,
	ASSET_CHARTS, /* line, bar and point charts on d3, each with its table */
	ASSET_STYLE,
	ASSET_DASHBOARD_HTML,
	ASSET_DASHBOARD,
	ASSET_REPORT,
	PAGE_ASSETS
};

struct span page_asset(enum page_asset a);

#endif
