"""The style of the report: light and dark from the system, readable at 390 px."""

STYLE = """
:root{color-scheme:light dark;--page:#fafafa;--card:#fff;--ink:#16181d;--quiet:#5c6370;--rule:#e3e6ea;
--accent:#3b5bdb;--bad:#c92a2a;--bad-soft:#fff1f0;--good:#087f5b;--good-soft:#eefaf4;--warn:#b35900;--warn-soft:#fff6e6;--code:#f1f3f5;
--zm4:#5e3c99;--zm3:#8a74b9;--zm2:#b2abd2;--zm1:#dcd8ea;--zp0:#f4f4f2;--zp1:#fde3c3;--zp2:#fdb863;--zp3:#ee9226;--zp4:#c96207;--zbad:#868e96}
@media (prefers-color-scheme:dark){:root{--page:#131519;--card:#1b1e24;--ink:#e8eaee;--quiet:#9aa3b0;--rule:#2c313a;
--accent:#8da2fb;--bad:#ff8787;--bad-soft:#33191a;--good:#63e6be;--good-soft:#142a23;--warn:#ffc078;--warn-soft:#2f2415;--code:#262a32;
--zm4:#b9a5f0;--zm3:#8f7cc9;--zm2:#65599a;--zm1:#40395f;--zp0:#2a2d33;--zp1:#54402a;--zp2:#8a5a20;--zp3:#cc7d1c;--zp4:#ffa94d;--zbad:#6c757d}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:920px;margin:0 auto;padding:24px 16px 48px}
h1{font-size:24px;margin:0}h2{font-size:17px;margin:0 0 12px}h3{font-size:14px;margin:0}
p{margin:0 0 6px}header{margin-bottom:16px}.quiet{color:var(--quiet);font-size:13px;overflow-wrap:anywhere}
section{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:16px 18px;margin:0 0 16px}
.banner{font-size:17px;padding:18px}.banner strong{margin-right:6px}
.banner::before{content:"";display:inline-block;width:10px;height:10px;border-radius:50%;margin-right:10px;background:currentColor}
.banner span{color:var(--ink)}.bad{background:var(--bad-soft);color:var(--bad)}.good{background:var(--good-soft);color:var(--good)}.open{color:var(--quiet)}
.banner strong{color:var(--ink)}
.card{border-left:4px solid var(--warn)}.card.critical{border-left-color:var(--bad)}.card.info{border-left-color:var(--accent)}.card.resolved{opacity:.75;border-left-color:var(--rule)}
.badge{font-size:12px;font-weight:600;padding:2px 9px;border-radius:999px;border:1px solid currentColor;color:var(--warn)}
.badge.critical{color:var(--bad)}.badge.info{color:var(--accent)}
dl{display:grid;grid-template-columns:120px 1fr;gap:8px 12px;margin:0}dt{color:var(--quiet)}dd{margin:0;min-width:0}
dd ul{margin:0;padding-left:18px}.chips{list-style:none;padding:0!important}.chip{color:var(--quiet)}
code{font:13px/1.4 ui-monospace,"SF Mono",Menlo,"DejaVu Sans Mono",monospace;background:var(--code);border-radius:4px;padding:1px 5px;overflow-wrap:anywhere}
.set{font-size:15px;font-weight:600;padding:4px 8px}
pre{margin:6px 0;padding:10px 12px;background:var(--code);border-radius:6px;overflow-x:auto;font:13px/1.45 ui-monospace,"SF Mono",Menlo,"DejaVu Sans Mono",monospace}
.three{display:grid;grid-template-columns:repeat(3,1fr);gap:18px}.big{font-size:22px;font-weight:600;margin:2px 0}
.scroll{overflow-x:auto}svg{width:100%;min-width:560px;height:auto;display:block}
.tick,.label{font-size:12px;fill:var(--quiet)}.grid{stroke:var(--rule);fill:none}.raw{stroke:var(--accent);stroke-opacity:.28;fill:none}
.line{stroke:var(--accent);stroke-width:2;fill:none;stroke-linejoin:round}
.mark{stroke:var(--quiet);stroke-dasharray:3 3;fill:none}.mark.finding{stroke:var(--bad)}.label.finding{fill:var(--bad)}
.during{fill:var(--bad);fill-opacity:.07}.threshold{stroke:var(--bad);stroke-width:1.5;stroke-dasharray:6 4;fill:none}.seen{fill:var(--card);stroke:var(--bad);stroke-width:2}
.line.l1{stroke:var(--zp4)}.line.l2{stroke:var(--good)}figure{margin:0 0 10px}.outcome{font-weight:600}
.zm4{fill:var(--zm4);background:var(--zm4)}.zm3{fill:var(--zm3)}.zm2{fill:var(--zm2)}.zm1{fill:var(--zm1)}.zm0,.zp0{fill:var(--zp0);background:var(--zp0)}
.zp1{fill:var(--zp1)}.zp2{fill:var(--zp2)}.zp3{fill:var(--zp3)}.zp4{fill:var(--zp4);background:var(--zp4)}.zbad{fill:var(--zbad);background:var(--zbad)}
.legend{color:var(--quiet);font-size:13px;margin-top:8px}.key{display:inline-block;width:14px;height:10px;border-radius:2px;margin:0 5px 0 12px;border:1px solid var(--rule)}
footer{color:var(--quiet);font-size:13px;text-align:center}
@media (max-width:600px){main{padding:16px 10px}dl{grid-template-columns:1fr;gap:2px}dd{margin-bottom:10px}.three{grid-template-columns:1fr}section{padding:14px}}
"""
