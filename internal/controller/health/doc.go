// Package health judges one target: from the reports of its parser and the state of its pod it derives a verdict, a
// reason and a one-line message. Beside the verdict it raises alerts for facts that a verdict does not cover, such as
// lost data.
//
// The package is pure. It must never use the network, the API server or the system clock: callers pass in what they
// observed, and when. It must never decide what follows from a verdict: package plan does that.
//
// # Glossary
//
//	target        a node, or a pod with a claim, that must have one parser
//	report        a parser's answer to one poll: figures of its process and of each stream
//	window        what is kept of the reports of one process; a new process starts a new one
//	policy        a pure function that matches one fault, or a state that is none
//	chain         the policies in order; the first that matches decides
//	judgement     a verdict with its reason, its message and the time it was reached
//	bad           a verdict that needs attention: all but Unknown, CatchingUp and Healthy
//	restartable   a verdict that a restart may cure: Growing, Stuck, Leaking
//	current       the judgement that the tracker stands by
//	latest        what the chain derives from the newest observation, confirmed or not
//	confirmed     shown by enough polls to replace the current judgement
//	clean poll    a poll with a report that shows no bad verdict and leaves no stream unknown
//	fading        the current verdict is bad, and the newest poll no longer shows it
//	uncommitted   bytes of whole lines on disk that no checkpoint covers yet; a torn last line does not count
//	lag           age of the oldest line that is not acknowledged, by when it was first seen on disk
//	acknowledged  accepted by the sink; committed: recorded in a checkpoint
//	held          bytes in live buffers and in flight, over all streams
//	unmoved       complete lines wait, and no stage that has some has progressed
//
// # The chain
//
// Causes outside the parser come before those that blame it: only what is left leads to a restart. The worst stream
// speaks for the target. NewChain has the policies in this order:
//
//	policy            question                                               verdict
//	NotRunningPod     Does the container run?                                NotRunning
//	UnreachablePod    Did the last 3 polls bring a report?                   Unreachable
//	FailedStream      Has a stream stopped for good?                         NotRunning
//	UnreadableSource  Can the parser read the node's files?                  SourceUnreadable
//	MissingSecret     Does it have what it needs to log in?                  SinkDown
//	UnboundedBuffers  Do buffers exceed their bound?                         Growing/Unbounded
//	TooFewReports     Are there 6 reports?                                   Unknown
//	SilentSink        Has the sink acknowledged nothing for 30 s?            SinkDown
//	StuckStream       Do lines wait, with nothing moved for stuckAfter?      Stuck
//	OverloadedStream  Behind, and sink, CPU or disk explain it?              Overloaded
//	SlowStream        Behind, and nothing outside the parser explains it?    Growing/ParserSlow
//	LeakingMemory     Will memory reach its limit within 30 min?             Leaking
//	StalledSource     Has the node stopped writing?                          SourceStalled
//	UnknownBacklog    Is a stream's backlog unknown?                         Unknown
//	UnprovenDelivery  Has nothing that waits ever been acknowledged?         Unknown
//	CatchingUpStream  Behind, and gaining?                                   CatchingUp
//	Otherwise                                                                Healthy
//
// # Formulas
//
// Rates are over the last minute (rateSpan).
//
//	written  = Δ(committed + uncommitted + skipped) / span
//	acked    = Δ acknowledged / span
//	behind   = lag ≥ spec.growth.lag, over at least 13 reports
//	gaining  = acked ≥ 1.1 × written, and fewer bytes uncommitted than a minute ago
//	bound    = 2 × (bufferLimit + largest line) + 4 MiB; exceeded in 3 reports in a row, or twice over in one
//	busy     = the largest of these that reaches its threshold: the sink's share of time (50 %),
//	           CPU's share of its limit (90 %), the share of time spent waiting for reads (50 %)
//	working  = CPU ≥ 90 % of min(cores, 1) × (1 − sink − reads), and acked ≥ 90 % of the best minute
//	leak     = Theil–Sen slope of one-minute memory maxima over 60 min, with a lower bound above 0, from 60 % of the
//	           limit on; the limit is reached within 30 min at that slope
//	drift    = malformed lines ≥ 10 % of all lines over 5 min, some in at least 3 of the minutes
//
// The slope is Theil's and Sen's median of pairwise slopes; its bound follows from the variance of Kendall's statistic,
// n(n−1)(2n+5)/18 (P. K. Sen, "Estimates of the regression coefficient based on Kendall's tau", JASA 63, 1968).
//
// # The tracker
//
//	          6 reports                      fault confirmed
//	unknown ─────────────▶ judged, not bad ───────────────────▶ bad ◀───────────────┐
//	   ▲                          ▲                              │                  │
//	   │                          │        a poll without it     ▼   a poll with it │
//	   │                          └──────────────────────────── fading ─────────────┘
//	   │                           cleared: 12 clean polls in a row
//	   └─── a new pod, from every state
//
// The policies above TooFewReports lead from unknown to bad directly. A bad verdict is confirmed at once, with two
// exceptions: ParserSlow takes 6 polls in a row, since a restart follows; Overloaded takes 18 of the last 24, since a
// sink at its limit keeps level whenever traffic ebbs. Another bad verdict replaces the current one without a clean
// poll between them. A new container, or a new process in it, starts a new window and keeps the judgement: a parser
// that crashes in a loop is one fault. A slow start is over once it started.
//
// # Where the complexity comes from
//
//   - A restart cures a hang, a leak and a process slowed by its own fault. It makes a broker's outage worse. So every
//     cause outside the parser is ruled out first, and a stream without an explanation must show the fault repeatedly.
//   - Memory is bounded, so a buffer stops growing at its limit. What grows then is the lag; both are judged.
//   - Absence is no proof of health: a figure that a parser does not know, a report without streams, or lines that
//     wait with nothing ever acknowledged end in Unknown, never in Healthy, and clear no bad verdict.
//   - A sink that acknowledges records and loses them receives the same ones again: acknowledged bytes alone are no
//     progress. Hence "fewer bytes uncommitted".
//   - Every figure may be forged: a parser runs beside other software. No figure may cause a panic, and texts are
//     bounded and printable.
//   - One operator watches thousands of parsers, up to 1,000 reports a second. Taking in a report allocates nothing
//     once a parser's streams are known, and a target of seven streams takes about 12 KB (BenchmarkFleet).
package health
