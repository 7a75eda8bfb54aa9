"""Answers questions by dnf's library, as dnf install does it: a JSON line a
world on standard input (repositories, installed packages, excludes, requests),
a JSON line with the answers on standard output: a sorted list of packages,
those that are gone after a "-", or the problem."""
import json, logging, os, shutil, subprocess, sys, tempfile
import dnf, dnf.goal, dnf.module.module_base, libdnf.module, rpm

logging.disable(logging.CRITICAL)


def header(p):
    h = rpm.hdr()
    for tag in ('name', 'version', 'release', 'arch'):
        h[tag] = p[tag]
    h['os'], h['buildtime'] = 'linux', 1
    if p['epoch']:
        h['epoch'] = p['epoch']
    for rel, deps in p['deps'].items():
        h[rel + 'name'], h[rel + 'flags'], h[rel + 'version'] = map(list, zip(*deps))
    if p['files']:
        dirs = sorted({os.path.dirname(f) + '/' for f in p['files']})
        h['dirnames'] = dirs
        h['basenames'] = [os.path.basename(f) for f in p['files']]
        h['dirindexes'] = [dirs.index(os.path.dirname(f) + '/') for f in p['files']]
    return b'\x8e\xad\xe8\x01\0\0\0\0' + h.unload()


def make_rpmdb(root, packages):
    subprocess.run(['rpmdb', '--root', root, '--importdb'], input=b''.join(map(header, packages)), check=True)


def load(world, tmp):
    base = dnf.Base()
    conf = base.conf
    conf.installroot = tmp + '/root'
    installed = world.get('installed')
    if not os.path.exists(conf.installroot):
        os.makedirs(conf.installroot)
        if installed:
            make_rpmdb(conf.installroot, installed)
    # A new cache each time: what is in it changes dnf's order of recommendations.
    conf.cachedir, conf.logdir, conf.persistdir = tempfile.mkdtemp(dir=tmp), tmp, tmp + '/persist'
    conf.reposdir, conf.plugins, conf.gpgcheck = ['/dev/null'], False, False
    conf.installonly_limit = 0  # as many kernels as are asked for
    conf.substitutions.update({'arch': 'x86_64', 'basearch': 'x86_64', 'releasever': '9'})
    conf.excludepkgs = world.get('excludes') or []
    for r in world['repos']:
        base.repos.add_new_repo(r['id'], conf, baseurl=['file://' + r['path']], priority=r['priority'], cost=r['cost'],
                                module_hotfixes=r['hotfixes'], excludepkgs=','.join(r.get('excludes') or []), includepkgs=','.join(r.get('includes') or []))
    base.fill_sack(load_system_repo=bool(installed))
    return base


def answer(base, request):
    base._goal = goal = dnf.goal.Goal(base.sack)
    modules = [s[1:] for s in request['specs'] if s.startswith('@')]
    if modules:
        try:
            dnf.module.module_base.ModuleBase(base).install(modules)
        except dnf.exceptions.MarkingErrors as e:
            problem = e.module_depsolv_errors
            if e.no_match_group_specs or e.error_group_specs or \
                    problem and problem[1] != libdnf.module.ModulePackageContainer.ModuleErrorType_ERROR_IN_DEFAULTS:
                return str(e)
    try:
        for spec in request['specs']:
            if not spec.startswith('@'):
                base.install(spec)
        for spec in request.get('reinstall') or []:
            base.reinstall(spec)
        for spec in request.get('upgrade') or []:
            base.upgrade(spec)
    except (dnf.exceptions.MarkingError, dnf.exceptions.PackagesNotInstalledError, dnf.exceptions.PackagesNotAvailableError) as e:
        return str(e)
    base._set_excludes_from_weak_to_goal()
    if not goal.run(allow_uninstall=bool(request.get('erase')), ignore_weak_deps=not request['weak'], force_best=request['best']):
        return dnf.util._format_resolve_problems(goal.problem_rules())
    come = goal.list_installs() + goal.list_upgrades() + goal.list_downgrades() + goal.list_reinstalls()
    names = {p.name for p in come}
    gone = [p for p in goal.list_erasures() + goal.list_obsoleted() if p.name not in names]
    return sorted(str(p) + '@' + p.reponame for p in come) + sorted({'-' + str(p) for p in gone})


for line in sys.stdin:
    world = json.loads(line)
    tmp = tempfile.mkdtemp()
    base = load(world, tmp)
    out = []
    for request in world['requests']:
        if any(s.startswith('@') for s in request['specs']):
            fresh = load(world, tmp)  # enabling a stream is for good
            out.append(answer(fresh, request))
            fresh.close()
        else:
            out.append(answer(base, request))
    base.close()
    shutil.rmtree(tmp)
    print(json.dumps(out), flush=True)
