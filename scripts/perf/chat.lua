-- Load for wrk: POST /v1/chat/completions of BYTES bytes, 64 sessions in turn, the session id in the body.
-- wrk ... -s chat.lua URL -- header|body BYTES
--   header: the id is also in X-Session-Id, for proxies that hash a header; body: it is only in the body.
local SESSIONS, MEMORY = 64, 64 * 1024 * 1024 -- fewer sessions when bodies are large
local requests, at = {}, 0

local TEXT = "You are a careful assistant; answer in short sentences and say so when you do not know. "

local function chat(session, bytes)
	local head = '{"model":"m","messages":[{"role":"system","content":"'
	local tail = '"},{"role":"user","content":"What is the capital of France, and why?"}],"temperature":0.7,' ..
		'"max_tokens":60,"stream":false,"session_params":{"session_id":"' .. session .. '"}}'
	local fill = bytes - #head - #tail
	local text = string.rep(TEXT, math.ceil(fill / #TEXT))
	return head .. string.sub(text, 1, fill) .. tail
end

function init(args)
	SESSIONS = math.max(4, math.min(SESSIONS, math.floor(MEMORY / tonumber(args[2]))))
	for i = 1, SESSIONS do
		local id = string.format("session-%04d", i)
		local headers = { ["Content-Type"] = "application/json", ["Accept"] = "*/*", ["User-Agent"] = "wrk" }
		if args[1] == "header" then headers["X-Session-Id"] = id end
		requests[i] = wrk.format("POST", "/v1/chat/completions", headers, chat(id, tonumber(args[2])))
	end
end

function request()
	at = at % SESSIONS + 1
	return requests[at]
end

function done(summary, latency, _)
	local e = summary.errors
	io.write(string.format('\nPERF {"requests":%d,"seconds":%.6f,"bytes":%d,"errors":%d,"p50_us":%d,"p99_us":%d,"max_us":%d}\n',
		summary.requests, summary.duration / 1e6, summary.bytes, e.connect + e.read + e.write + e.status + e.timeout,
		latency:percentile(50), latency:percentile(99), latency.max))
end
