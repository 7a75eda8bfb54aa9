-- Mount points, unless something is mounted there already.
for _, dir in ipairs({"/dev", "/proc", "/sys"}) do
  if not posix.stat(dir) then
    assert(posix.mkdir(dir))
    assert(posix.chmod(dir, dir == "/dev" and "755" or "555"))
  end
end
