-- The dependencies of each kernel's modules.
local modules, depmod = "/usr/lib/modules", "/usr/sbin/depmod"
if posix.access(depmod, "x") then
  local versions = posix.dir(modules) or {}
  table.sort(versions)
  for _, version in ipairs(versions) do
    local dir = modules .. "/" .. version
    if version:sub(1, 1) ~= "." and posix.stat(dir .. "/kernel", "type") == "directory" then
      assert(rpm.execute(depmod, version), "depmod " .. version)
    end
  end
end
