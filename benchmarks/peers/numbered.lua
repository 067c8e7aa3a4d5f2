-- GETs for wrk that all differ: PATH PATHS FIELDS. The k-th asks for PATH{k modulo PATHS}/{k}, and one field contains k.
local number = 0

function init(arguments)
  path, paths = arguments[1], tonumber(arguments[2])
  for field = 3, tonumber(arguments[3]) do  -- Host and X-Number are two.
    wrk.headers["X-Field-" .. field] = "a value of ordinary length " .. field
  end
  fields = wrk.format("GET", "/"):sub(#"GET /" + 1, -3)
end

function request()
  number = number + 1
  return "GET " .. path .. number % paths .. "/" .. number .. fields .. "X-Number: " .. number .. "\r\n\r\n"
end
