/* The files are read by the assembler; the Makefile knows that this object depends on them. */
#include "lib/page/assets.h"

#include "lib/page/assets_embedded.h"

#ifndef PAGE_D3 /* the Makefile's D3_JS */
#define PAGE_D3 "/usr/share/javascript/d3/d3.min.js"
#endif

#define EMBED(name, path)                                                                          \
	__asm__(".pushsection .rodata\n"                                                           \
		".balign 16\n"                                                                     \
		".hidden page_" #name "_begin\n.globl page_" #name "_begin\n"                      \
		"page_" #name "_begin:\n"                                                          \
		".incbin \"" path "\"\n"                                                           \
		".hidden page_" #name "_end\n.globl page_" #name "_end\n"                          \
		"page_" #name "_end:\n"                                                            \
		".byte 0\n"                                                                        \
		".popsection\n")

EMBED(d3_notice, "lib/page/d3-notice.js");
EMBED(d3, PAGE_D3);
EMBED(charts, "lib/page/charts.js");
EMBED(style, "lib/page/page.css");
EMBED(dashboard_html, "lib/page/dashboard.html");
EMBED(dashboard, "lib/page/dashboard.js");
EMBED(report, "lib/page/report.js");

struct span page_asset(enum page_asset a)
{
	static const struct {
		const char *begin, *end;
	} at[PAGE_ASSETS] = {
		[ASSET_D3_NOTICE] = {page_d3_notice_begin, page_d3_notice_end},
		[ASSET_D3] = {page_d3_begin, page_d3_end},
		[ASSET_CHARTS] = {page_charts_begin, page_charts_end},
		[ASSET_STYLE] = {page_style_begin, page_style_end},
		[ASSET_DASHBOARD_HTML] = {page_dashboard_html_begin, page_dashboard_html_end},
		[ASSET_DASHBOARD] = {page_dashboard_begin, page_dashboard_end},
		[ASSET_REPORT] = {page_report_begin, page_report_end},
	};

	return (struct span){at[a].begin, (size_t)(at[a].end - at[a].begin)};
}
