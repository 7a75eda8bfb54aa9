"""Answers questions by dnf's library, as dnf install does it: a JSON line a
world on standard input (repositories, excludes, requests), a JSON line with
the answers on standard output: a sorted list of packages, or the problem."""
import json, logging, os, shutil, sys, tempfile
import dnf, dnf.goal, dnf.module.module_base, dnf.subject, libdnf.module

logging.disable(logging.CRITICAL)


def load(world, tmp):
    base = dnf.Base()
    conf = base.conf
    conf.installroot = tmp + '/root'
    os.makedirs(conf.installroot, exist_ok=True)
    conf.cachedir, conf.logdir, conf.persistdir = tmp + '/cache', tmp, tmp + '/persist'
    conf.reposdir, conf.plugins, conf.gpgcheck = ['/dev/null'], False, False
    conf.substitutions.update({'arch': 'x86_64', 'basearch': 'x86_64', 'releasever': '9'})
    conf.excludepkgs = world.get('excludes') or []
    for r in world['repos']:
        base.repos.add_new_repo(r['id'], conf, baseurl=['file://' + r['path']], priority=r['priority'], cost=r['cost'],
                                module_hotfixes=r['hotfixes'])
    base.fill_sack(load_system_repo=False)
    return base


def install(base, goal, spec):
    subject = dnf.subject.Subject(spec)
    selectors = [s for s in subject._get_best_selectors(base, obsoletes=True) if s.matches()]
    if not selectors:
        return 'no match for ' + spec
    for s in selectors:
        goal.install(select=s, optional=False)


def answer(base, request):
    goal = dnf.goal.Goal(base.sack)
    modules = [s[1:] for s in request['specs'] if s.startswith('@')]
    if modules:
        base._goal = goal
        try:
            dnf.module.module_base.ModuleBase(base).install(modules)
        except dnf.exceptions.MarkingErrors as e:
            problem = e.module_depsolv_errors
            if e.no_match_group_specs or e.error_group_specs or \
                    problem and problem[1] != libdnf.module.ModulePackageContainer.ModuleErrorType_ERROR_IN_DEFAULTS:
                return str(e)
    for spec in request['specs']:
        if not spec.startswith('@'):
            problem = install(base, goal, spec)
            if problem:
                return problem
    if not goal.run(ignore_weak_deps=not request['weak'], force_best=request['best']):
        return str(goal.problem_rules())
    return sorted(str(p) + '@' + p.reponame for p in goal.list_installs())


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
